"""conf/ with options alone: files whose names begin with `_` are bases of others, and no list of options shows them."""

from __future__ import annotations

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.search_path_plugin import SearchPathPlugin

from winnow.config import CONF


class OptionsSource(FileConfigSource):
    """Hydra's source for files, which lists no base."""

    @staticmethod
    def scheme() -> str:
        return "winnow"

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return [name for name in super().list(config_path, results_filter) if not name.startswith("_")]


class OptionsPath(SearchPathPlugin):
    """Reads Winnow's own files through `OptionsSource`; other programs and other folders are left as they are."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.provider == "main" and Path(element.path.removeprefix("file://")).resolve() == CONF:
                element.path = f"winnow://{CONF}"
