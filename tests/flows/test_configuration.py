"""The configuration file: every key checked, every message saying which key and what would do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import run_config, write_toml

from flows.config import DistillConfig, load_config, parse_config
from sparsedistill.errors import ConfigError
from tasks.presets import PRESETS
from tasks.student_config import StudentConfig

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").rglob("*.toml"))


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    return run_config(tmp_path / "data", tmp_path / "store")


def with_table(given: Mapping[str, Any], table: str, **keys: object) -> dict[str, Any]:
    return {**given, table: {**given.get(table, {}), **keys}}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_of_the_repository_is_a_valid_configuration(path: Path):
    config = load_config(path)
    assert config.name


def test_there_is_a_paper_experiment_for_each_of_its_tasks():
    assert {"quickstart", "sst2", "imdb", "trec", "ag_news", "wiki_toxic"} <= {
        path.stem for path in EXPERIMENTS if path.parent.name == "experiments"
    }
    paper = [load_config(path) for path in EXPERIMENTS if path.parent.name == "paper"]
    assert len(paper) >= 5
    for config in paper:
        assert config.student.preset == "paper"
        assert config.student.updates == 1_000_000
        assert config.student.width == 1000
        assert config.vocabulary.size == 1_000_000
        assert config.teacher is not None
        assert config.teacher.checkpoint == "FacebookAI/roberta-large"


def test_a_toml_file_gives_what_the_mapping_gives(given: dict[str, Any], tmp_path: Path):
    assert load_config(write_toml(tmp_path / "c.toml", given)) == parse_config(given)


@pytest.mark.parametrize(
    ("table", "key", "nearest"),
    [
        ("student", "epoch", "epochs"),
        ("student", "leraning_rate", "learning_rate"),
        ("corpus", "row_per_shard", "rows_per_shard"),
        ("teacher", "learning_rate", "learning_rates"),
        ("run", "thread", "threads"),
        ("logits", "pth", "path"),
    ],
)
def test_an_unknown_key_names_the_nearest(
    given: dict[str, Any], table: str, key: str, nearest: str
):
    message = rf"{table}\.{key}: there is no such key; the nearest is {nearest}$"
    with pytest.raises(ConfigError, match=message):
        parse_config(with_table(given, table, **{key: 1}))


def test_an_unknown_key_like_no_other_lists_those_there_are(given: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"features\.zzz: .*there are max_ngrams"):
        parse_config(with_table(given, "features", zzz=1))


def test_an_unknown_table_names_the_nearest(given: dict[str, Any]):
    with pytest.raises(ConfigError, match=r"vocabulry: there is no such key; .* vocabulary"):
        parse_config({**given, "vocabulry": {"size": 3}})


def test_every_mistake_is_told_at_once(given: dict[str, Any]):
    wrong = with_table(with_table(given, "student", epoch=1), "features", max_ngrams=0)
    with pytest.raises(ConfigError) as caught:
        parse_config(wrong, name="my.toml")
    assert str(caught.value).startswith("my.toml:\n")
    assert "student.epoch" in str(caught.value)
    assert "features.max_ngrams" in str(caught.value)


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("student", "width", 0, r"student\.width: .*greater than or equal to 1, not 0"),
        ("student", "width", "wide", r'student\.width: .*integer.*not "wide"'),
        ("student", "preset", "papre", r"student\.preset: .*'paper'.*not \"papre\""),
        ("student", "preset", ["paper"], r"student\.preset: "),
        ("student", "activation", "gelu", r"student\.activation: .*'relu' or 'tanh'"),
        ("student", "updates", 5, "student: give either epochs or updates"),
        ("ngrams", "tokenizer", "spaces", r"ngrams\.tokenizer: .*'word', 'whitespace'"),
        ("ngrams", "min_n", 5, "ngrams: min_n must not be more than max_n"),
        ("corpus", "sources", [], r"corpus\.sources: "),
        ("corpus", "rows_per_shard", 0, r"corpus\.rows_per_shard: .*not 0"),
        ("dataset", "labels", ["a"], "dataset: labels needs at least two names"),
        ("package", "keep_share", 0, r"package\.keep_share: .*greater than 0"),
        ("run", "runner", "ray", r"run\.runner: .*'threads', 'processes' or 'dask'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_value_that_cannot_work_is_named_with_what_would(
    given: dict[str, Any], table: str, key: str, value: object, message: str
):
    with pytest.raises(ConfigError, match=message):
        parse_config(with_table(given, table, **{key: value}))


def test_a_missing_table_is_required_by_name(given: dict[str, Any]):
    del given["dataset"]
    with pytest.raises(ConfigError, match="dataset: is required"):
        parse_config(given)


def test_a_missing_key_is_required_by_name(given: dict[str, Any]):
    del given["dataset"]["train"]
    with pytest.raises(ConfigError, match=r"dataset\.train: is required"):
        parse_config(given)


def test_a_table_that_is_no_table_is_named(given: dict[str, Any]):
    with pytest.raises(ConfigError, match="features: "):
        parse_config({**given, "features": 3})
    with pytest.raises(ConfigError, match="student: "):
        parse_config({**given, "student": 3})


@pytest.mark.parametrize("both", [True, False])
def test_logits_come_from_a_teacher_or_a_file_and_not_from_both_or_none(
    given: dict[str, Any], both: bool
):
    if both:
        given["logits"] = {"path": "x.parquet"}
    else:
        del given["teacher"]
    with pytest.raises(ConfigError, match=r"either a \[teacher\] table or \[logits\] path"):
        parse_config(given)


@pytest.mark.parametrize("name", ["", "Upper", "with space", "../up", "-dash"])
def test_a_name_that_is_no_directory_name_is_refused(given: dict[str, Any], name: str):
    with pytest.raises(ConfigError, match="name: "):
        parse_config({**given, "name": name})


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("student.epochs=7", lambda c: c.student.epochs == 7),
        ("student.seeds=[0, 1]", lambda c: c.student.seeds == (0, 1)),
        ("student.learning_rate=1e-4", lambda c: c.student.learning_rate == 1e-4),
        ("ngrams.tokenizer=whitespace", lambda c: c.ngrams.tokenizer == "whitespace"),
        ("ngrams.tokenizer = 'word'", lambda c: c.ngrams.tokenizer == "word"),
        ("corpus.split_sentences=true", lambda c: c.corpus.split_sentences is True),
        ("corpus.sources=['a=b.txt']", lambda c: c.corpus.sources == ("a=b.txt",)),
        ("name=other", lambda c: c.name == "other"),
        ("package.dtype=int8", lambda c: c.package.dtype == "int8"),
        ("run.store=s3://bucket/x=1", lambda c: c.run.store == "s3://bucket/x=1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_key_can_be_set_from_the_command_line(
    given: dict[str, Any], tmp_path: Path, override: str, found
):
    path = write_toml(tmp_path / "c.toml", given)
    assert found(load_config(path, overrides=[override]))


@pytest.mark.parametrize("override", ["student.epochs", "=3", "student.=3", ""])
def test_an_override_without_key_or_value_shows_how_to_write_it(
    given: dict[str, Any], tmp_path: Path, override: str
):
    path = write_toml(tmp_path / "c.toml", given)
    with pytest.raises(ConfigError, match=r"--set .*write it as table\.key=value"):
        load_config(path, overrides=[override])


def test_an_override_below_a_plain_value_is_refused(given: dict[str, Any], tmp_path: Path):
    path = write_toml(tmp_path / "c.toml", given)
    with pytest.raises(ConfigError, match="name is no table"):
        load_config(path, overrides=["name.first=1"])


def test_an_unknown_key_in_an_override_names_the_nearest(given: dict[str, Any], tmp_path: Path):
    path = write_toml(tmp_path / "c.toml", given)
    with pytest.raises(ConfigError, match="the nearest is epochs"):
        load_config(path, overrides=["student.epoch=1"])


def test_the_data_root_can_be_given_beside_the_file(given: dict[str, Any], tmp_path: Path):
    path = write_toml(tmp_path / "c.toml", given)
    assert load_config(path, data="/elsewhere").data == "/elsewhere"


def test_a_missing_file_names_the_nearest(given: dict[str, Any], tmp_path: Path):
    write_toml(tmp_path / "quickstart.toml", given)
    with pytest.raises(
        ConfigError, match=r"no configuration .*; did you mean .*quickstart\.toml\?"
    ):
        load_config(tmp_path / "quickstrat.toml")


def test_a_directory_is_no_configuration(tmp_path: Path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_config(tmp_path)


@pytest.mark.parametrize("content", [b"name = ", b"[student\n", b'name = "\xff"'])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.toml is not valid TOML: "):
        load_config(path)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_fills_every_key_that_is_not_set(name: str):
    config = StudentConfig.model_validate({"preset": name})
    for key, value in PRESETS[name].items():
        assert getattr(config, key) == value


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_key_that_is_set_overrides_the_preset(name: str):
    config = StudentConfig.model_validate({"preset": name, "width": 3, "betas": [0.5, 0.6]})
    assert (config.width, config.betas) == (3, (0.5, 0.6))
    assert config.learning_rate == PRESETS[name]["learning_rate"]


def test_a_length_of_one_kind_replaces_the_presets_other_kind():
    assert StudentConfig.model_validate({"preset": "paper", "epochs": 3}).updates is None
    assert StudentConfig.model_validate({"preset": "default", "updates": 3}).epochs is None


def test_the_two_presets_of_the_paper_differ_as_its_code_does():
    paper, code = (StudentConfig.model_validate({"preset": p}) for p in ("paper", "released-code"))
    for config in (paper, code):
        assert (config.width, config.hidden, config.batch_size) == (1000, 1000, 2048)
        assert (config.updates, config.learning_rate) == (1_000_000, 5e-4)
    assert (paper.activation, code.activation) == ("relu", "tanh")
    assert (paper.betas, code.betas) == ((0.9, 0.999), (0.9, 0.98))
    assert (code.epsilon, code.warmup, code.decay) == (1e-6, 0.06, "linear")
    assert (code.feature_dropout, code.dropout, code.weight_decay) == (0.1, 0.1, 0.01)


def test_a_configuration_cannot_be_changed_after_it_was_checked(given: dict[str, Any]):
    config: DistillConfig = parse_config(given)
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rivals", "message"),
    [
        ([{"architecture": "gru"}], r"student\.rivals\.0\.architecture: .*'bilstm' or 'cnn'"),
        ([{}], r"student\.rivals\.0\.architecture: is required"),
        (
            [{"architecture": "cnn"}, {"architecture": "bilstm", "hiden": 3}],
            r"student\.rivals\.1\.hiden: there is no such key; the nearest is hidden$",
        ),
        (
            [{"architecture": "cnn", "layers": 2}],
            r"student\.rivals\.0: layers is of a bilstm; a cnn has none",
        ),
        (
            [{"architecture": "bilstm", "window": 7}],
            r"student\.rivals\.0: window is of a cnn; a bilstm has none",
        ),
        (
            [{"architecture": "cnn"}, {"architecture": "cnn", "hidden": 128}],
            r"student\.rivals: give one of each architecture",
        ),
    ],
)
def test_a_rival_that_cannot_be_is_named_with_what_would(
    given: dict[str, Any], rivals: list[dict[str, Any]], message: str
):
    with pytest.raises(ConfigError, match=message):
        parse_config(with_table(given, "student", rivals=rivals))


def test_rivals_without_a_teacher_are_refused_because_they_read_its_tokens(given: dict[str, Any]):
    del given["teacher"]
    config = {**given, "logits": {"path": "x.parquet"}}
    assert parse_config(config).student.rivals == ()
    with pytest.raises(ConfigError, match=r"\[student\] rivals read the tokens of a teacher: "):
        parse_config(with_table(config, "student", rivals=[{"architecture": "cnn"}]))


def test_a_rival_can_be_asked_for_from_the_command_line(given: dict[str, Any], tmp_path: Path):
    path = write_toml(tmp_path / "c.toml", given)
    found = load_config(path, overrides=['student.rivals=[{architecture = "bilstm", layers = 1}]'])
    (rival,) = found.student.rivals
    assert (rival.variant, rival.layers, rival.hidden) == ("kd_bilstm", 1, 256)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("objective", "hard", r"student\.objective: .*'soft' or 'logits'"),
        ("seeds", [0, -1], r"student\.seeds\.1: .*greater than or equal to 0"),
        ("betas", [1.0, 0.9], r"student\.betas\.0: .*less than 1"),
        ("baselines", ["kd"], r"student\.baselines\.0: .*'scratch' or 'kd_private'"),
    ],
)
def test_a_student_that_could_not_be_trained_is_refused_at_once(
    given: dict[str, Any], key: str, value: Any, message: str
):
    with pytest.raises(ConfigError, match=message):
        parse_config(with_table(given, "student", **{key: value}))
