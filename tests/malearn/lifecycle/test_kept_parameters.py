"""What was found is written into the declaration, and nothing else of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from malearn.kernel.errors import DeclarationError
from malearn.kernel.tool_types import declared
from malearn.lifecycle import kept_parameters

FOUND = {"n_estimators": 46, "learning_rate": 0.01322, "objective": "reg:absoluteerror"}
OWN = """# ours
[video_process]
retrain_after = 7  # often
[video_process.features]
duration = { unit = "s", min = 0 }

[video_process.hyperparameters.xgboost]
max_depth = 3  # by hand
# until here

[speech_process]
retrain_after = 9
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MALEARN_TOOL_TYPES", raising=False)
    return tmp_path / "malearn.toml"


def test_a_shipped_tool_type_keeps_its_features(file: Path) -> None:
    shipped = declared()["llm_process"]
    assert kept_parameters.keep("llm_process", "xgboost", FOUND).resolve() == file
    now = declared()["llm_process"]
    assert now.hyperparameters == {"xgboost": FOUND}
    assert (now.features, now.functions, now.context) == (
        shipped.features,
        shipped.functions,
        shipped.context,
    )


def test_a_table_that_is_there_is_replaced_and_the_rest_stays(file: Path) -> None:
    file.write_text(OWN)
    kept_parameters.keep("video_process", "xgboost", FOUND)
    kept_parameters.keep("video_process", "mlp", {"hidden_layer_sizes": (16, 8)})
    text = file.read_text()
    before, _, rest = OWN.partition("[video_process.hyperparameters.xgboost]")
    assert text.startswith(before + kept_parameters.table("video_process", "xgboost", FOUND))
    assert rest[rest.index("[speech_process]") :] in text
    types = declared()
    assert types["video_process"].hyperparameters["mlp"] == {"hidden_layer_sizes": (16, 8)}
    assert "max_depth" not in types["video_process"].hyperparameters["xgboost"]
    assert types["speech_process"].retrain_after == 9


def test_what_cannot_be_changed_is_left_alone_and_shown(file: Path) -> None:
    inline = "[llm_process]\nhyperparameters = { xgboost = { max_depth = 3 } }\n"
    file.write_text(inline)
    with pytest.raises(DeclarationError, match=r"write \[llm_process\.hyperparameters\.xgboost\]"):
        kept_parameters.keep("llm_process", "xgboost", FOUND)
    assert file.read_text() == inline
    assert [p.name for p in file.parent.iterdir()] == ["malearn.toml"]
