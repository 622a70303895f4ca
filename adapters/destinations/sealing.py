"""Secrets of destinations are sealed with a key that lies in the data directory, readable by its owner alone.

Whoever has a copy of the log alone does not have the secrets; whoever has the data directory does.
"""

import os
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from eventlog.errors import ConfigError

KEY_FILE: Final = "destinations.key"


class FernetSeal:
    """Seals with Fernet (AES-128-CBC and HMAC-SHA256, cryptography's recipe)."""

    def __init__(self, key: bytes) -> None:
        self._fernet = Fernet(key)

    def seal(self, text: str) -> str:
        """Return the text sealed."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Return the text that was sealed. Raises ConfigError when the key is another."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise ConfigError(
                f"a destination's secret was sealed with another key: put the data directory's {KEY_FILE} back, "
                "or set the secret again"
            ) from None


def new_seal() -> FernetSeal:
    """Return a seal with a key that is kept nowhere, for simulations."""
    return FernetSeal(Fernet.generate_key())


def load_seal(data_dir: Path) -> FernetSeal:
    """Return the data directory's seal; the first call makes its key."""
    path = data_dir / KEY_FILE
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(handle, "wb") as file:
            file.write(Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
    try:
        return FernetSeal(path.read_bytes().strip())
    except ValueError:
        raise ConfigError(
            f"{path} is not a key: put back the one that was there, or delete it and set all secrets again"
        ) from None
