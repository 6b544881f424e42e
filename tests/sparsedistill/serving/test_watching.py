"""What operators see: health, readiness, metrics, the log, the documentation."""

import asyncio
import base64
import hashlib
import json
import logging
import os
import re
import subprocess
import sys

import pytest
from helpers.small_service import (
    LABELS,
    ROOT,
    ask,
    client_of,
    metric,
    predict,
    small_classifier,
    small_service,
    until_ready,
)

from sparsedistill.errors import ConfigError
from sparsedistill.serving import Settings, logs
from sparsedistill.serving.routes import ROUTES
from sparsedistill.serving.settings import ServerSettings, from_json, to_json


def test_it_is_ready_when_its_kernels_are_compiled_and_no_longer_when_it_stops():
    service = small_service()

    async def living():
        async with client_of(service) as client:

            async def statuses():
                paths = ["/readyz", "/healthz"]
                return [(await client.get(path)).status_code for path in paths]

            before = await statuses()
            early = await client.post("/v1/predict", json={"text": "a"})
            await until_ready(service)
            ready = await statuses()
            service.stop()
            last = await client.post("/v1/predict", json={"text": "a"})
            return before, early, ready, await statuses(), last

    before, early, ready, stopping, last = asyncio.run(living())
    assert (before, ready, stopping) == ([503, 200], [200, 200], [503, 200])
    assert (early.status_code, early.headers["retry-after"]) == (503, "1")
    assert last.status_code == 200


def test_a_model_that_does_not_work_is_not_healthy(monkeypatch, caplog):
    classifier = small_classifier()
    monkeypatch.setattr(classifier, "answers", lambda texts: 1 / 0)
    service = small_service(classifier)

    async def failing():
        async with client_of(service) as client:
            while not service.failed:
                await client.get("/healthz")
                await asyncio.sleep(0.01)
            return await client.get("/healthz"), await client.get("/readyz")

    healthy, ready = asyncio.run(failing())
    assert (healthy.status_code, ready.status_code) == (503, 503)
    assert "does not work" in caplog.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_load_balancers_may_ask_by_head(service, path):
    answer = ask(service, path, method="HEAD")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_lifespan_protocol_starts_and_ends_it(service):
    async def living():
        received = asyncio.Queue()
        sent = asyncio.Queue()
        task = asyncio.create_task(service({"type": "lifespan"}, received.get, sent.put))
        await received.put({"type": "lifespan.startup"})
        assert (await sent.get())["type"] == "lifespan.startup.complete"
        await until_ready(service)
        await received.put({"type": "lifespan.shutdown"})
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await task

    asyncio.run(living())
    assert service.stopping


def test_it_can_be_mounted_under_a_path(service):
    async def mounted(scope, receive, send):
        scope = {**scope, "root_path": "/classifier"}
        await service(scope, receive, send)

    mounted.start, mounted.failed = service.start, False

    async def asking():
        await until_ready(service)
        async with client_of(mounted) as client:
            return await client.post("/classifier/v1/predict", json={"text": "good"})

    assert asyncio.run(asking()).status_code == 200


def numbers(service):
    return ask(service, "/metrics").text


def test_requests_texts_bytes_labels_and_abstentions_are_counted(service):
    bodies = [{"text": "a good film"}, {"texts": ["bad", "good", "x"]}]
    bodies.append({"texts": ["film"] * 2, "abstain_below": 1})
    size = 0
    for body in bodies:
        answer = predict(service, body)
        size += len(answer.request.content)
    predict(service, b"{")
    text = numbers(service)

    def counted(name):
        return metric(text, f"sparsedistill_{name}")

    assert counted('requests_total{route="/v1/predict",status="200"}') == 3
    assert counted('requests_total{route="/v1/predict",status="400"}') == 1
    assert counted('request_seconds_count{route="/v1/predict"}') == 4
    assert counted("texts_total") == counted("coverage_count") == 6
    assert counted("request_bytes_total") == size + 1
    assert counted("abstentions_total") == 2
    labels = service.classifier.predict(["a good film", "bad", "good", "x"])
    for label in LABELS:
        assert counted(f'labels_total{{label="{label}"}}') == labels.count(label)
    known = service.classifier.coverage(["a good film", "bad", "good", "x", "film", "film"])
    assert counted("coverage_sum") == pytest.approx(known.sum(), abs=1e-5)
    assert counted("requests_in_flight") == 1  # this one
    assert 'dtype="float32",model="small",rows="7"' in text
    assert re.search(r'process_resident_memory_bytes\{worker="\d+"\} \d', text)


def test_what_clients_invent_makes_no_series(service):
    for path in ("/a", "/b", "/c?d=e"):
        ask(service, path)
        ask(service, path, method="INVENTED")
    text = numbers(service)
    assert metric(text, 'sparsedistill_requests_total{route="other",status="404"}') == 6
    assert "INVENTED" not in text


MULTIPROCESS = """
import asyncio, os, sys
from helpers.small_service import ask, predict, small_service
service = small_service()
predict(service, {"texts": ["good"] * int(sys.argv[1])})
print(ask(service, "/metrics").text)
"""


def test_processes_that_share_a_directory_count_together(tmp_path):
    def run(texts):
        return subprocess.run(
            [sys.executable, "-c", MULTIPROCESS, str(texts)],
            env={
                **os.environ,
                "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    first, second = run(3), run(4)
    assert metric(first, "sparsedistill_texts_total") == 3
    # The first has ended: what it counted stays, what it was doing does not.
    assert metric(second, "sparsedistill_texts_total") == 7
    assert metric(second, "sparsedistill_requests_in_flight") == 1
    assert len(re.findall(r"^process_open_fds", second, re.MULTILINE)) == 1
    assert metric(second, 'sparsedistill_requests_total{route="/v1/predict",status="200"}') == 2


def access_lines(caplog):
    formatter = logs.JsonFormatter()
    return [
        json.loads(formatter.format(record))
        for record in caplog.records
        if record.name == logs.ACCESS
    ]


def test_a_request_is_one_line_of_json_without_its_text(service, caplog):
    with caplog.at_level(logging.INFO, "sparsedistill"):
        predict(service, {"texts": ["my secret", "more"]}, params={"q": "secret"})
        ask(service, "/secret", headers={"authorization": "secret"}, method="secret")
    line, unknown = access_lines(caplog)
    assert "secret" not in caplog.text + str(line) + str(unknown)
    assert line["event"] == "request"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/predict", 200)
    assert (line["texts"], line["bytes_in"]) == (2, len('{"texts":["my secret","more"]}'))
    assert line["bytes_out"] > 0
    assert line["ms"] > 0
    assert line["client"] == "127.0.0.1"
    assert (unknown["method"], unknown["route"], unknown["status"]) == ("other", "other", 404)


def test_a_request_keeps_the_id_that_it_came_with(service, caplog):
    with caplog.at_level(logging.INFO):
        answer = predict(service, {"text": "a"}, headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert access_lines(caplog)[0]["request_id"] == "abc-1"


@pytest.mark.parametrize("given", ["", "a b", 'a"b', "x" * 129, "é".encode("latin-1")])
def test_an_id_that_could_do_harm_is_replaced(service, given):
    answer = predict(service, {"text": "a"}, headers={"X-Request-ID": given})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_of_an_error_the_log_tells_the_type_and_the_place_only():
    try:
        raise ValueError("about my secret")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info()
        )
    line = json.loads(logs.JsonFormatter().format(record))
    assert line["error"] == "ValueError"
    assert "test_watching.py" in line["at"][0]
    assert "secret" not in str(line)


UNAWAITED = """
import asyncio, gc, logging.config
from sparsedistill.serving import logs

logging.config.dictConfig(logs.log_config(access=True))

async def failing():
    raise ValueError("about my secret")

async def main():
    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

asyncio.run(main())
gc.collect()
logging.getLogger("some.library").warning("I was given %s", "my secret")
"""


def test_what_others_log_is_one_line_of_json_without_its_message():
    done = subprocess.run(
        [sys.executable, "-c", UNAWAITED], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == ""
    first, second = map(json.loads, done.stderr.splitlines())
    assert (first["event"], first["level"], first["error"]) == ("asyncio", "error", "ValueError")
    assert any("failing" in frame for frame in first["at"])
    assert (second["event"], second["level"]) == ("some.library", "warning")
    assert "secret" not in done.stderr


def test_the_document_describes_every_route_and_the_limits_of_this_service():
    document = ask(small_service(max_texts=7), "/openapi.json").json()
    assert set(document["paths"]) | {"/docs", "/openapi.json"} == ROUTES
    body = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert '"maxItems": 7' in json.dumps(body["schema"]["properties"]["texts"])
    assert {"200", "400", "408", "413", "415", "422", "503"} <= set(
        document["paths"]["/v1/predict"]["post"]["responses"]
    )
    for reference in set(re.findall(r'"#/([^"]+)"', json.dumps(document))):
        found = document
        for step in reference.split("/"):
            found = found[step]


def test_the_page_of_the_document_needs_nothing_from_elsewhere(service):
    answer = ask(service, "/docs")
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.text
    assert not re.search(r"(src|href)=\"?(https?:)?//", page)
    for route in ROUTES - {"/docs", "/openapi.json"}:
        assert f"<code>{route}</code>" in page
    policy = answer.headers["content-security-policy"]
    for tag in ("script", "style"):
        inline = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_name_with_markup_is_shown_as_it_is():
    service = small_service()
    service.api.title = "<script>alert(1)</script>"
    page = ask(service, "/docs").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    "wrong",
    [{"max_bytes": 0}, {"max_texts": -1}, {"threads": 0}, {"body_seconds": 0}, {"name": ""}],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"port": 65536}, {"workers": 0}, {"drain_seconds": -1}, {"grace_seconds": 0}]
)
def test_server_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ServerSettings(**wrong)


def test_a_worker_reads_the_settings_that_it_was_given():
    given = ("models/a", Settings(name="é", max_texts=3), ServerSettings(port=1, workers=4))
    assert from_json(to_json(*given)) == given
