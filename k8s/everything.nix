# Settings with all that is off by default: golden/everything shows what they add.
{
  onboardingAgent = { enable = true; telegramBot = "openclaw_example_bot"; };
  web.enable = true;
  ingress.publicProxy = true;
  vault = { enable = true; later = [ "onboarding_proxy_token" "telegram_bot_token" ]; };
  mail.host = "smtp.openclaw.example";
  operator.storageClass = "local-path";
}
