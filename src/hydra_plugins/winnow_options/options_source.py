"""conf/ with options alone: files whose names begin with `_` are bases of others, and no list of options shows them."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin

from winnow.config import CONF


@cache
def _read(folder: str, config_path: str, changed: int) -> bytes:
    return pickle.dumps(FileConfigSource("main", folder).load_config(config_path))


class OptionsSource(FileConfigSource):
    """Hydra's source for files, which lists no base, and reads a file once for all jobs of a sweep."""

    @staticmethod
    def scheme() -> str:
        return "winnow"

    def load_config(self, config_path: str) -> ConfigResult:
        changed = Path(self.path, self._normalize_file_name(config_path)).stat().st_mtime_ns
        return pickle.loads(_read(self.path, config_path, changed))  # Hydra changes what it gets

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [name for name in super().list(config_path, results_filter) if not name.startswith("_")]


class OptionsPath(SearchPathPlugin):
    """Reads Winnow's own files through `OptionsSource`; other programs and other folders are left as they are."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main" and Path(element.path.removeprefix("file://")).resolve() == CONF:
                element.path = f"winnow://{CONF}"
