# What the roles of the program control have in common: environment by role.
{ workload }: {
  databases = { DATABASE_URL = "postgres_url"; REDIS_URL = "redis_url"; };
  env = plain: secret: workload.plainEnv plain // workload.secretEnv workload.secret secret;
}
