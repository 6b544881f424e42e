"""What is raised is told to Prefect: secrets are crossed out of it, and it stays what it is."""

from __future__ import annotations

import dataclasses
import errno
import traceback

import pydantic
import pytest
from prefect.states import Failed

from sparsedistill.errors import SparseDistillError
from storage import SourceError
from tasks.prefect_task import _may_pass
from tasks.raised import telling_no_secrets

SECRET = "hf_secretOfTheHub93ac"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)


class _Quoting(Exception):
    def __init__(self, rows: list[dict[str, str]]) -> None:
        super().__init__(rows)
        self.rows = rows

    def __str__(self) -> str:
        return f"these failed: {self.rows}"


class _Unchanging(Exception):
    def __str__(self) -> str:
        return f"always {SECRET}"


class _Network(ConnectionError):
    def __str__(self) -> str:
        return f"always {SECRET}"


class _Number(pydantic.BaseModel):
    number: int


def _of_pydantic() -> Exception:
    try:
        _Number.model_validate({"number": SECRET})
    except pydantic.ValidationError as error:
        return error
    raise AssertionError("it is no number")


def raised(error: Exception, cause: BaseException | None = None) -> Exception:
    with pytest.raises(Exception) as caught, telling_no_secrets():  # noqa: PT011 - whichever
        raise error from cause
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ValueError(f"no such name: {SECRET}"),
        OSError(errno.ENOENT, "no such file", f"/data/{SECRET}.txt"),
        OSError(errno.ENOENT, "no such file", "/data/a", None, f"/data/{SECRET}"),
        SourceError(f"{SECRET}.txt", f"cannot be read as {SECRET}"),
        KeyError(SECRET),
        _Quoting([{"stage": "logits", "reason": f"said {SECRET}"}]),
        ExceptionGroup("several", [ValueError(SECRET), KeyError(("a", [SECRET]))]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_stays_what_it_is_without_its_secret(error: Exception):
    kept = raised(error)
    assert kept is error
    told = "".join(traceback.format_exception(kept))
    assert SECRET not in told + repr(kept)
    assert "***" in told


def test_what_led_to_an_error_is_told_without_secrets_too():
    first, second = ConnectionError(SECRET), ValueError("in between")
    second.__context__ = first
    kept = raised(RuntimeError("at last"), second)
    kept.__cause__.add_note("seen")  # type: ignore[union-attr]
    assert kept.__cause__ is second
    assert str(first) == "***"


def test_errors_that_led_to_each_other_come_to_an_end():
    one, other = ValueError(SECRET), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    with pytest.raises(ValueError, match=r"^\*\*\*$"), telling_no_secrets():
        raise one


@pytest.mark.parametrize("error", [_Unchanging(), _of_pydantic()], ids=["own", "pydantic"])
@pytest.mark.parametrize("cause", [False, True])
def test_a_text_that_cannot_be_changed_is_replaced(error: Exception, cause: bool):
    kept = raised(RuntimeError("at last"), error) if cause else raised(error)
    assert type(kept) is SparseDistillError
    assert SECRET not in "".join(traceback.format_exception(kept))
    assert str(kept).startswith("RuntimeError: at last" if cause else type(error).__name__)


def test_a_noted_secret_is_no_secret_kept():
    error = ValueError("plain")
    error.add_note(f"with {SECRET}")
    assert SECRET not in "".join(traceback.format_exception(raised(error)))


def test_what_quotes_no_secret_is_untouched():
    error = OSError(errno.ENOSPC, "full", "/data")
    assert raised(error) is error
    assert (error.errno, error.filename, error.args) == (errno.ENOSPC, "/data", (28, "full"))


@dataclasses.dataclass(frozen=True)
class _Frozen(Exception):
    reason: str


class _Knotted(Exception):
    def __init__(self) -> None:
        super().__init__(SECRET)
        self.all = {"all": self.__dict__}
        self.all["again"] = self.all


def test_a_frozen_error_and_one_that_holds_itself_quote_no_secret():
    kept = raised(_Frozen(SECRET))
    assert (type(kept), str(kept)) == (SparseDistillError, "_Frozen: ***")
    assert str(raised(_Knotted())) == "***"


def test_what_is_shown_with_no_error_is_no_reason_to_replace_it():
    hidden = _Unchanging()
    error = FileNotFoundError("gone")
    error.__context__, error.__suppress_context__ = hidden, True
    assert raised(error) is error


@pytest.mark.parametrize(("error", "may_pass"), [(_Unchanging(), False), (_Network(), True)])
def test_a_replaced_error_is_tried_again_where_the_real_one_would_be(
    error: Exception, may_pass: bool
):
    assert _may_pass(Failed(data=raised(error))) is may_pass


def test_who_is_interrupted_is_left_alone():
    with pytest.raises(KeyboardInterrupt), telling_no_secrets():
        raise KeyboardInterrupt
