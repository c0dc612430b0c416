# Settings with all that is off by default: golden/everything shows what they add.
{
  onboardingAgent.enable = true;
  web.enable = true;
  ingress.publicProxy = true;
  vault = { enable = true; later = [ "onboarding_proxy_token" "telegram_bot_token" ]; };
  mail.host = "smtp.openclaw.example";
  network.loadBalancers = [ "203.0.113.7/32" ];
  operator.storageClass = "local-path";
}
