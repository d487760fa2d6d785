"""Loading a config for the tools, with the data folder set in one place."""

from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict


def load_config(path: str | Path, cfg_options: dict | None = None) -> Config:
    """mmengine's config with `--cfg-options` merged; `data_root=…` moves every path that lies under the config's own.

    A config bakes `data_root` into its data sets, tag files and hooks, so that merging the variable alone would change
    nothing.

    Raises:
        ValueError: `data_root` is given for a config that has none.
    """
    cfg = Config.fromfile(path)
    if cfg_options and 'data_root' in cfg_options:
        if not isinstance(cfg.get('data_root'), str):
            raise ValueError(f'{path}: expected a config with a data_root to override, got {cfg.get("data_root")!r}')
        cfg.merge_from_dict(moved(cfg._cfg_dict, cfg.data_root.rstrip('/'), cfg_options['data_root'].rstrip('/')))
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    return cfg


def moved(value: Any, old: str, new: str) -> Any:
    """`value` with every string that is the path `old`, or a path below it, moved to `new`."""
    if isinstance(value, dict):
        return ConfigDict({key: moved(item, old, new) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(moved(item, old, new) for item in value)
    if isinstance(value, str) and (value == old or value.startswith(f'{old}/')):
        return new + value[len(old) :]
    return value
