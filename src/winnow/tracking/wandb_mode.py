"""Whether a run is tracked online or offline, from the configuration, the environment and W&B's credentials."""

from __future__ import annotations

import os
from importlib.util import find_spec

from winnow.errors import UserError
from winnow.network import is_offline, reachable

MODES = ("auto", "online", "offline", "disabled")


def server() -> str:
    """The address of W&B's server."""
    from wandb.sdk import wandb_setup  # internal to wandb, which has no public way to ask

    return wandb_setup.singleton().settings.base_url


def has_key() -> bool:
    """Whether W&B credentials are configured, by W&B's own lookup: environment (WANDB_API_KEY,
    WANDB_IDENTITY_TOKEN_FILE), netrc file, settings file. Looks only: neither asks, nor connects, nor writes.

    Raises UserError when credentials are found that cannot be valid."""
    import wandb

    # Internal to wandb, but the public `wandb.login(prompt=False)` prints and rewrites the user's settings.
    from wandb.sdk.lib import wbauth

    try:
        found = wbauth.authenticate_session(host=server(), source="winnow", prompt=False, update_session=False)
    except wandb.Error as error:
        raise UserError(f"W&B credentials: {error}; mend them, or set tracking.mode=offline.") from error
    return found is not None


def resolve_mode(mode: str) -> str:
    """`online`, `offline` or `disabled` for a configured mode. `auto` follows WANDB_MODE when that is set,
    and otherwise is online exactly when a key is configured and the server answers within seconds.

    Raises UserError for an unknown mode, for `online` without a key (W&B would ask for one) and for `online` without
    a server that answers."""
    source, spec = "tracking.mode", find_spec("wandb")
    missing = spec is None or spec.loader is None  # the latter: a folder `wandb` that runs have left
    if mode == "auto" and os.environ.get("WANDB_MODE") and not (missing and is_offline()):
        # wandb itself still accepts these two older words.
        mode = {"dryrun": "offline", "run": "online"}.get(os.environ["WANDB_MODE"], os.environ["WANDB_MODE"])
        source = "WANDB_MODE"
    if missing:
        if mode in ("online", "offline"):
            raise UserError(
                f"{source}={mode} needs W&B: run `pip install -c requirements.txt -e '.[wandb]'` in the repository, "
                f"or use tracking=csv."
            )
        if mode == "auto":
            print("W&B is not installed, so nothing is tracked but in CSV files (tracking=csv).", flush=True)
            return "disabled"
    if mode not in MODES:
        raise UserError(f"{source}: found {mode!r}, expected one of {', '.join(MODES)}.")
    if mode == "auto":
        if not has_key():
            return "offline"
        if reachable(server()):
            return "online"
        print(f"{server()} does not answer, so W&B is offline; `wandb sync` sends the run later.", flush=True)
        return "offline"
    if mode == "online" and not has_key():
        raise UserError(
            f"{source}: found 'online', but no W&B key is configured; "
            "set WANDB_API_KEY, run `wandb login`, or use tracking.mode=offline."
        )
    if mode == "online" and not reachable(server()):
        raise UserError(f"{source}: found 'online', but {server()} does not answer; use tracking.mode=offline.")
    return mode
