"""A chat service as the tests of judges ask it: requests, and what comes of them."""

from dataclasses import replace

from chat_server import said

from refusal.errors import UserError
from refusal.judges import batches, service
from refusal.judges.base import Keep
from refusal.judges.service import TOGETHER, Service, one_by_one

KEY = "tgp_v1_very-secret-key"


def hurry(monkeypatch):
    """Waits of a hundredth of a second, no certificates to load, a key, no proxy between here and the loopback."""
    monkeypatch.setattr(service, "BACK_OFF_S", (0.01, 0.02))
    monkeypatch.setattr(batches, "POLL_S", (0.01, 0.02))
    monkeypatch.setattr("together._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", lambda *_, **__: None)
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


SERVICE = Service(
    judge="rubric judge",
    base_url=TOGETHER,
    concurrency=4,
    timeout_s=5,
    tries=3,
    usd_per_million_input=1.0,
    usd_per_million_output=2.0,
    spend_limit_usd=1.0,
    unanswered="stop",
)


def asking(server, **changes):
    return replace(SERVICE, base_url=server.url, **changes)


def bodies(*texts):
    return [
        {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 10, "temperature": 0}
        for text in texts
    ]


def ask(server, *texts, way=one_by_one, folder=None, **changes):
    """Number -> answer, and what was raised, in words."""
    found = {}
    try:
        asking(server, **changes).ask(
            bodies(*texts), Keep(lambda number, answer: found.update({number: answer}), folder), way
        )
    except UserError as error:
        return found, str(error)
    return found, None


def place(server):
    return server.url.removeprefix("http://")


def echo(request):
    return said(f"to {request.text}")
