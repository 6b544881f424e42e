"""Whatever is sent, the answer is JSON that says what to do; and never that the service failed."""

import json

import pytest
from helpers.small_service import ask, predict, small_service
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECRET = "a-very-secret-text"

REQUESTS = [
    (b"", 400, "invalid_json"),
    (b"text=hello", 400, "invalid_json"),
    (b'{"text": "cut off', 400, "invalid_json"),
    (b'{"text": "\xff\xfe"}', 400, "invalid_json"),
    (b'\xef\xbb\xbf{"text": "a byte order mark"}', 400, "invalid_json"),
    (b'{"text": "\\ud800"}', 400, "invalid_json"),
    (b'{"texts": ["fine", "\\udfff"]}', 400, "invalid_json"),
    (b'{"text": "a raw \x00"}', 400, "invalid_json"),
    (b"[" * 100_000, 400, "invalid_json"),
    (b'{"text":' * 100_000, 400, "invalid_json"),
    (b'{"text": ' + b"9" * 10_000 + b"}", 400, "invalid_json"),
    (b"null", 422, "invalid_request"),
    (b"[]", 422, "invalid_request"),
    (b'"text"', 422, "invalid_request"),
    (b"{}", 422, "invalid_request"),
    (b'{"text": null}', 422, "invalid_request"),
    (b'{"text": 1}', 422, "invalid_request"),
    (b'{"text": ["a"]}', 422, "invalid_request"),
    (b'{"texts": "a"}', 422, "invalid_request"),
    (b'{"texts": ["a", null]}', 422, "invalid_request"),
    (b'{"texts": {"0": "a"}}', 422, "invalid_request"),
    (b'{"text": "a", "texts": ["a"]}', 422, "invalid_request"),
    (b'{"text": "a", "txet": "a"}', 422, "invalid_request"),
    (b'{"text": "a", "proba": "yes"}', 422, "invalid_request"),
    (b'{"text": "a", "coverage": 1}', 422, "invalid_request"),
    (b'{"text": "a", "top_k": 0}', 422, "invalid_request"),
    (b'{"text": "a", "top_k": true}', 422, "invalid_request"),
    (b'{"text": "a", "top_k": 1.5}', 422, "invalid_request"),
    (b'{"text": "a", "top_k": 1e400}', 422, "invalid_request"),
    (b'{"text": "a", "top_k": 99999999999999999999999}', 200, None),
    (b'{"text": "a", "explain": -1}', 422, "invalid_request"),
    (b'{"text": "a", "explain": 101}', 422, "invalid_request"),
    (b'{"text": "a", "abstain_below": 1.01}', 422, "invalid_request"),
    (b'{"text": "a", "abstain_below": NaN}', 422, "invalid_request"),
    (b'{"text": "a", "abstain_below": true}', 422, "invalid_request"),
    (b'{"text": "a", "abstain_below": "high"}', 422, "invalid_request"),
    (b'{"text": "a", "abstain_below": {"positive": 2}}', 422, "invalid_request"),
    (b'{"text": "a", "abstain_below": {"no such label": 0.5}}', 422, "invalid_request"),
]


@pytest.mark.parametrize(("body", "status", "code"), REQUESTS, ids=lambda value: repr(value)[:40])
def test_a_body_that_is_no_request_is_refused_with_a_reason(service, body, status, code):
    answer = predict(service, body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    if code:
        problem = answer.json()
        assert problem["code"] == code
        assert problem["message"]
        assert problem["request_id"] == answer.headers["x-request-id"]


def test_a_nul_is_a_character_like_others(service):
    assert predict(service, b'{"text": "a \\u0000 good\\u0000film"}').status_code == 200


def test_the_place_of_what_is_wrong_is_named(service):
    problem = predict(service, {"texts": ["a", 1, "b", None]}).json()
    assert problem["message"] == "texts[1] must be a string"
    assert [one["field"] for one in problem["fields"]] == ["texts[1]", "texts[3]"]


def test_a_threshold_of_the_wrong_kind_is_told_once(service):
    problem = predict(service, {"text": "a", "abstain_below": [1]}).json()
    assert problem["message"].startswith("abstain_below must be a number from 0 to 1, an object")
    assert len(problem["fields"]) == 1


def test_a_threshold_for_a_label_of_any_length_gets_a_short_answer(service):
    message = predict(service, {"text": "a", "abstain_below": {"x" * 5000: 0.5}}).json()["message"]
    assert "which is no label of the model: its labels are negative, positive" in message
    assert len(message) < 400


def test_thresholds_of_a_model_without_any_are_said_to_be_missing(service):
    service.classifier.thresholds = {}
    problem = predict(service, {"text": "a", "abstain_below": "model"}).json()
    assert "came without thresholds" in problem["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"text": SECRET, "explain": -1},
        {"texts": [SECRET, 1]},
        {"text": SECRET, "texts": []},
        {"text": [SECRET]},
        {"text": {SECRET: 1}},
    ],
)
def test_no_answer_repeats_a_text_that_it_refuses(service, body):
    answer = predict(service, body)
    assert answer.status_code == 422
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
def test_a_body_of_another_type_is_refused_with_the_type_to_send(service, kind):
    answer = predict(service, b'{"text": "a"}', headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in answer.json()["message"]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
def test_the_type_may_say_that_it_is_utf_8(service, kind):
    assert predict(service, b'{"text": "a"}', headers={"content-type": kind}).status_code == 200


def test_a_compressed_body_is_refused_as_nobody_knows_how_large_it_will_be(service):
    answer = predict(service, b"...", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


def test_a_large_body_is_refused_by_its_length_before_it_is_read():
    answer = predict(small_service(max_bytes=100), {"text": "x" * 100})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 5000])
def test_a_length_that_is_none_is_refused(service, length):
    answer = predict(service, b'{"text": "a"}', headers={"content-length": length})
    assert answer.status_code == 413


def test_a_large_body_in_chunks_is_refused_long_before_its_end():
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 50

    service = small_service(max_bytes=1000)
    answer = ask(
        service, "/v1/predict", method="POST", content=chunks(),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert sent < 200  # some more are let come, so that the client sees the answer


def test_a_body_in_chunks_is_read_whole(service):
    async def chunks():
        for byte in b'{"text": "good"}':
            yield bytes([byte])

    answer = ask(
        service, "/v1/predict", method="POST", content=chunks(),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert answer.json() == predict(service, {"text": "good"}).json()


def test_the_number_of_texts_is_bounded():
    service = small_service(max_texts=3)
    assert predict(service, {"texts": ["a"] * 3}).status_code == 200
    answer = predict(service, {"texts": ["a"] * 4})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_texts")
    assert "more than 3 texts" in answer.json()["message"]


@pytest.mark.parametrize("many", [False, True])
def test_the_bytes_of_a_text_are_bounded(many):
    service = small_service(max_text_bytes=40)

    def sent(text):
        return predict(service, {"texts": ["a", text]} if many else {"text": text})

    assert sent("é" * 20).status_code == 200
    answer = sent("é" * 20 + "x")
    assert (answer.status_code, answer.json()["code"]) == (413, "text_too_long")
    assert ("texts[1]" if many else "text ") in answer.json()["message"]


def test_explanations_are_for_few_texts_at_a_time():
    service = small_service(max_explained=2)
    assert predict(service, {"texts": ["a"] * 2, "explain": 1}).status_code == 200
    assert predict(service, {"texts": ["a"] * 3, "explain": 1}).status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"])
def test_another_method_is_refused_with_the_one_that_is_right(service, method):
    answer = ask(service, "/v1/predict", method=method)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    if method != "HEAD":
        assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/predict/", "/v1/predict%00", "/../etc/passwd"])
def test_an_unknown_address_is_said_to_be_unknown(service, path):
    answer = ask(service, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
fields = st.sampled_from(
    ["text", "texts", "top_k", "abstain_below", "proba", "coverage", "explain", "other"]
)
likely = st.text(max_size=20) | st.lists(st.text(max_size=20), max_size=4) | st.booleans()
requests = st.dictionaries(
    fields, likely | st.integers(-2, 120) | st.floats(-0.5, 1.5) | json_values, max_size=5
)
LAX = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check(service, body):
    answer = predict(service, body)
    assert answer.status_code in {200, 400, 413, 422}
    assert isinstance(answer.json(), dict)


@LAX
@given(requests | json_values)
def test_no_json_makes_the_service_fail(service, value):
    check(service, json.dumps(value).encode())


@LAX
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_make_the_service_fail(service, body):
    check(service, body)


@LAX
@given(st.data())
def test_no_altered_request_makes_the_service_fail(service, data):
    body = bytearray(b'{"texts": ["a good film", "\\u00e9"], "abstain_below": 0.5, "top_k": 2}')
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check(service, bytes(body))
