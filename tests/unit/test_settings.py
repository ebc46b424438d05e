"""Settings: flag, then environment, then project file, then user file, then default; strict about what people write."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import load_settings
from runtime.errors import InvalidInput


def test_flag_beats_environment_beats_project_file_beats_user_file(tmp_path: Path) -> None:
    user = tmp_path / "home/.config/pipe/config.toml"
    user.parent.mkdir(parents=True)
    user.write_text('progress = "jsonl"\njobs = 7\n')
    env = {"HOME": str(tmp_path / "home")}
    assert load_settings({}, env, str(tmp_path)).progress == "jsonl"
    (tmp_path / ".pipe.toml").write_text('progress = "quiet"\n')
    assert load_settings({}, env, str(tmp_path)).progress == "quiet"
    env["PIPE_PROGRESS"] = "plain"
    assert load_settings({}, env, str(tmp_path)).progress == "plain"
    settings = load_settings({"progress": "tty"}, env, str(tmp_path))
    assert (settings.progress, settings.jobs) == ("tty", 7)


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    (tmp_path / ".pipe.toml").write_text('progres = "quiet"\n')
    with pytest.raises(InvalidInput, match="unknown setting `progres`") as caught:
        load_settings({}, {}, str(tmp_path))
    assert caught.value.hint == "did you mean `progress`?"


def test_a_wrong_value_says_where_it_came_from(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="PIPE_JOBS is 'many'"):
        load_settings({}, {"PIPE_JOBS": "many"}, str(tmp_path))


def test_broken_toml_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".pipe.toml").write_text("jobs = \n")
    with pytest.raises(InvalidInput, match=r"\.pipe\.toml cannot be read"):
        load_settings({}, {}, str(tmp_path))
