"""What of the network a run may use: `offline=true` uses none of it."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import sys
import threading
import urllib.error
import urllib.request

from winnow.errors import UserError

SETTINGS = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
# What these libraries made of the settings when they were imported.
CONSTANTS = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    "transformers.utils.hub": ("_is_offline_mode",),
}
_offline = False  # what the audit hook asks: hooks cannot be taken away again
_hooked = False


def set_offline(offline: bool) -> None:
    """From now on nothing in this process reaches the internet; libraries that know an offline mode are in it, so that
    they take what their caches hold. `offline=False` undoes the first alone.

    This machine and private addresses, which processes of one run need, stay in reach.
    """
    global _offline, _hooked
    _offline = offline
    if not offline:
        return
    os.environ.update(SETTINGS)
    if os.environ.get("WANDB_MODE") != "disabled":
        os.environ["WANDB_MODE"] = "offline"
    for module, names in CONSTANTS.items():
        if module in sys.modules:
            for name in names:
                setattr(sys.modules[module], name, True)
    if not _hooked:
        sys.addaudithook(_refuse)
        _hooked = True


def is_offline() -> bool:
    """Whether `set_offline` holds."""
    return _offline


def _refuse(event: str, arguments: tuple) -> None:
    if not _offline or event not in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        return
    if event == "socket.getaddrinfo":
        host = arguments[0]
    else:  # of the addresses only those of the internet are tuples that begin with a text
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    if is_internet(host):
        raise UserError(f"offline=true, but {host} was asked for; give a local copy of what it has, or offline=false.")


def is_internet(host: object) -> bool:
    """Whether a host is neither this machine nor a private address; false for what is no host at all."""
    if not host or not isinstance(host, (str, bytes)):
        return False
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_global
    except ValueError:
        return name not in ("localhost", socket.gethostname())


def reachable(url: str, seconds: float = 5.0) -> bool:
    """Whether something answers at `url`, also under a certificate that is not trusted, through the proxy of the
    environment where there is one."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an answer, if no kind one
        except (OSError, ValueError, UserError) as error:
            # W&B may be told to take a certificate that is not trusted.
            if not isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                return
        answers.append(True)

    # In a thread, because no timeout ends the search for an address.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)
