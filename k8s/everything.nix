# Settings with all that is off by default: golden/everything shows what they add.
{
  api.operatorOrigins = [ "http://127.0.0.1:3001" ];
  onboardingAgent.telegramBot = "openclaw_example_bot";
  ingress.publicProxy = true;
  vault = { enable = true; later = [ "onboarding_proxy_token" "telegram_bot_token" ]; };
  mail.host = "smtp.openclaw.example";
  operator.storageClass = "local-path";
}
