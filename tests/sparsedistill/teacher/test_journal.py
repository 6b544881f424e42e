"""The journal of a pass: what was kept is there again; what was cut short or altered is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.teacher.journal import Journal

RECORDS = {
    (0, 0, 5): np.arange(6, dtype=np.float32).reshape(3, 2),
    (0, 2, 2**32 - 1): np.full((1, 2), -0.0, np.float32),
    (7, 1, 0): np.array([[np.nan, np.inf]], np.float32),
    (7, 2, 9): np.zeros((0, 2), np.float32),
}


def write(path, fingerprint="a"):
    with Journal(path, fingerprint=fingerprint) as journal:
        for where, logits in RECORDS.items():
            journal.add(*where, logits)


def kept(path, fingerprint="a"):
    with Journal(path, fingerprint=fingerprint) as journal:
        return [where for where in RECORDS if journal.found(*where) is not None]


def test_what_was_kept_is_there_again_bit_by_bit(tmp_path):
    write(tmp_path / "j")
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        assert len(journal) == len(RECORDS)
        for where, logits in RECORDS.items():
            assert journal.found(*where).tobytes() == logits.tobytes()
            assert journal.found(*where).shape == logits.shape
        assert journal.found(1, 1, 5) is None
        assert journal.found(0, 0, 6) is None  # of other rows


def test_another_pass_begins_anew(tmp_path):
    write(tmp_path / "j")
    assert kept(tmp_path / "j", fingerprint="b") == []
    assert kept(tmp_path / "j") == []


def test_a_journal_is_written_on_after_it_was_read(tmp_path):
    write(tmp_path / "j")
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        journal.add(9, 9, 9, np.ones((1, 2), np.float32))
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        assert len(journal) == len(RECORDS) + 1


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_journal_cut_anywhere_keeps_its_whole_records(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "j"
    write(path)
    whole = path.read_bytes()
    end = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:end])
    found = kept(path)
    assert found == list(RECORDS)[: len(found)]
    write(path)  # and what was lost can be added again
    assert kept(path) == list(RECORDS)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_an_altered_record_is_never_served(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("altered") / "j"
    write(path)
    changed = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    with Journal(path, fingerprint="a") as journal:
        for where, logits in RECORDS.items():
            found = journal.found(*where)
            assert found is None or found.tobytes() == logits.tobytes()


def test_no_directory_is_an_error_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "none" / "j", fingerprint="a")
