import sys

import pytest
from fsspec.registry import _registry
from remote_cases import NAME

from sparsedistill.errors import ConfigError, ModelFileError
from sparsedistill.remote import fetch_model


@pytest.mark.parametrize("status", [401, 403])
def test_a_url_that_refuses_says_whose_credentials_are_asked_for(server, status):
    server.status["config.json"] = status
    with pytest.raises(ModelFileError, match="access is refused; credentials for http:// are"):
        fetch_model(f"{server.url}/plain/student")


def test_a_url_that_answers_with_an_error_is_named(server):
    server.status["model.safetensors"] = 500
    with pytest.raises(ModelFileError, match=r"student/model.safetensors: cannot be .* 500"):
        fetch_model(f"{server.url}/plain/student")


def test_nobody_at_a_url_is_an_error_of_ours(server):
    with pytest.raises(ModelFileError, match=r"http://127.0.0.1:9/x/config.json: cannot be"):
        fetch_model("http://127.0.0.1:9/x")


def test_password_and_signature_of_a_url_are_used_and_never_told(server, caplog):
    caplog.set_level(0)
    plain = server.url.removeprefix("http://")
    url = f"http://user:pass1234@{plain}/plain/student/?signature=abcd1234"
    assert fetch_model(url)
    server.plain.pop("student/config.json")
    for status in (None, 401, 500):
        server.status = {} if status is None else {"config.json": status}
        with pytest.raises(ModelFileError, match=r"plain/student/config.json") as caught:
            fetch_model(url)
        told = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
        assert "pass1234" not in told
        assert "abcd1234" not in told


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://x/y", "nothing://x/y: .*[Pp]rotocol"),
        ("gs://bucket/x", "gs://bucket/x: .*gcsfs"),
    ],
)
def test_a_protocol_that_is_not_known_or_not_installed_is_said(url, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises((ModelFileError, ConfigError), match=message):
        fetch_model(url)


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("fsspec", "https://host/x", "remote"),
        ("huggingface_hub", NAME, "hub"),
        ("s3fs", "s3://bucket/x", "s3"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(missing, name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(ConfigError, match=rf"pip install 'sparsedistill\[{extra}\]'"):
        fetch_model(name)


def test_a_revision_is_for_the_hub_only(saved):
    for name in (saved, str(saved), saved.as_uri()):
        with pytest.raises(ConfigError, match="revision 'v1' is for a model on the hub"):
            fetch_model(name, revision="v1")
