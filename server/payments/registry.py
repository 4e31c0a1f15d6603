"""Which providers a process has, by its settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.config import Settings
from server.errors import Misconfigured
from server.payments.demo import DemoProvider
from server.payments.provider import Provider


@dataclass(frozen=True, slots=True)
class Providers:
    """`chosen` makes new payments (None: none are made); `by_name` has all that can be asked,
    so that payments of a provider used earlier are still heard of and refunded."""

    chosen: Provider | None
    by_name: Mapping[str, Provider]

    @property
    def demo(self) -> DemoProvider | None:
        provider = self.by_name.get("demo")
        return provider if isinstance(provider, DemoProvider) else None

    async def aclose(self) -> None:
        for provider in self.by_name.values():
            await provider.aclose()


def open_providers(settings: Settings) -> Providers:
    """The providers that the settings name. Raises Misconfigured."""
    by_name: dict[str, Provider] = {}
    if settings.demo:
        by_name["demo"] = DemoProvider(settings.require_secret(), settings.public_url)
    if settings.stripe_secret_key.get_secret_value():
        by_name["stripe"] = _stripe(settings)
    wanted = settings.payment_provider or ("demo" if settings.demo else "")
    if wanted and wanted not in by_name:
        need = {"demo": "LIVESALE_DEMO", "stripe": "LIVESALE_STRIPE_SECRET_KEY"}[wanted]
        raise Misconfigured(f"LIVESALE_PAYMENT_PROVIDER={wanted} needs {need}")
    return Providers(by_name.get(wanted), by_name)


def _stripe(settings: Settings) -> Provider:
    try:
        from server.payments.stripe import StripeProvider
    except ImportError:
        raise Misconfigured("Stripe needs its library: pip install 'livesale[stripe]'") from None
    webhook_secret = settings.stripe_webhook_secret.get_secret_value()
    if not webhook_secret or not settings.public_url:
        raise Misconfigured("Stripe needs LIVESALE_STRIPE_WEBHOOK_SECRET and LIVESALE_PUBLIC_URL")
    key = settings.stripe_secret_key.get_secret_value()
    return StripeProvider(key, webhook_secret, settings.public_url)
