"""Too much at once, clients that are slow or go away, and errors of our own."""

import asyncio
import logging
import threading

from helpers.small_service import client_of, metric, predict, small_service, until_ready

LARGE = {"texts": ["a good film"] * 1000}


class Exchange:
    """One request by hand: what the client sends, part by part, and what it gets."""

    def __init__(self, *messages, headers=(), hold=False):
        self.messages = list(messages)
        self.hold = hold
        self.sent = []
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/predict",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), *headers],
        }

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        if self.hold:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"] if self.sent else None


def part(body, *, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def run(service, exchange):
    async def running():
        await until_ready(service)
        await service(exchange.scope, exchange.receive, exchange.send)

    asyncio.run(running())
    return exchange


def test_a_body_that_does_not_come_is_given_up():
    slow = Exchange(part(b'{"text": '), hold=True)
    assert run(small_service(body_seconds=0.05), slow).status == 408
    assert (b"connection", b"close") in slow.sent[0]["headers"]
    assert b"within 0.05 seconds" in slow.sent[1]["body"]


def test_a_client_that_goes_away_gets_nothing_and_is_counted():
    service = small_service()
    assert run(service, Exchange(part(b'{"te'))).sent == []
    counted = service.metrics.scrape("")[0].decode()
    assert metric(counted, 'sparsedistill_requests_total{route="/v1/predict",status="499"}') == 1
    assert metric(counted, "sparsedistill_requests_in_flight") == 0


def test_a_body_that_is_too_large_at_its_end_is_refused_without_waiting_for_more():
    last = Exchange(part(b" " * 99), part(b" " * 99, more=False), hold=True)
    assert run(small_service(max_bytes=100, body_seconds=1000), last).status == 413


def test_what_is_left_of_a_body_that_is_refused_is_not_waited_for_without_end():
    endless = Exchange(*[part(b" " * 99)] * 1000)
    assert run(small_service(max_bytes=100), endless).status == 413
    assert len(endless.messages) > 900
    stuck = Exchange(part(b" " * 101), hold=True)
    assert run(small_service(max_bytes=100, body_seconds=0.05), stuck).status == 413


def test_bodies_that_are_too_large_together_are_turned_away():
    service = small_service(max_bytes=100, max_concurrency=2, body_seconds=2)

    async def together():
        await until_ready(service)
        exchanges = [Exchange(part(b" " * 99), hold=True) for _ in range(2)]
        exchanges.append(Exchange(part(b" " * 99, more=False), hold=True))
        tasks = [
            asyncio.create_task(service(one.scope, one.receive, one.send)) for one in exchanges
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.01)
        statuses = [one.status for one in exchanges]
        await asyncio.gather(*tasks)
        after = Exchange(part(b'{"text": "room again"}', more=False))
        await service(after.scope, after.receive, after.send)
        return statuses, after.status

    assert asyncio.run(together()) == ([None, None, 503], 200)


class Held:
    """Stands for a classifier whose answers wait until they are let go."""

    def __init__(self, service):
        self.go = threading.Event()
        self._answers = service.classifier.answers

    def __call__(self, texts, **options):
        assert self.go.wait(30)
        return self._answers(texts, **options)


def test_beyond_the_limit_a_request_is_turned_away_and_small_ones_still_go_through(monkeypatch):
    service = small_service(max_concurrency=2)

    async def together():
        await until_ready(service)
        held = Held(service)
        answers = service.classifier.answers
        monkeypatch.setattr(
            service.classifier,
            "answers",
            lambda texts, **options: (held if len(texts) > 1 else answers)(texts, **options),
        )
        async with client_of(service) as client:
            waiting = [
                asyncio.create_task(client.post("/v1/predict", json=LARGE)) for _ in range(2)
            ]
            while len(service._predictor._threads._threads) < 1 or metric_in_flight(service) < 2:
                await asyncio.sleep(0.01)
            refused = await client.post("/v1/predict", json=LARGE)
            small = await client.post("/v1/predict", json={"text": "good"})
            alive = await client.get("/healthz")
            held.go.set()
            done = await asyncio.gather(*waiting)
            after = await client.post("/v1/predict", json=LARGE)
        return refused, small, alive, [*done, after]

    refused, small, alive, done = asyncio.run(together())
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["code"] == "too_many_requests"
    assert small.status_code == alive.status_code == 200
    assert [answer.status_code for answer in done] == [200, 200, 200]


def test_bodies_that_wait_for_a_thread_count_as_in_memory(monkeypatch):
    service = small_service(max_bytes=5000, max_concurrency=2)
    large = b'{"texts": ["good", "bad"]}'.ljust(5000)

    async def together():
        await until_ready(service)
        held = Held(service)
        monkeypatch.setattr(service.classifier, "answers", held)
        exchanges = [Exchange(part(large, more=False)) for _ in range(2)]
        tasks = [
            asyncio.create_task(service(one.scope, one.receive, one.send)) for one in exchanges
        ]
        while service._predictor._slots._taken < 2:
            await asyncio.sleep(0.01)
        small = [Exchange(part(b'{"text": "good"}', more=False)) for _ in range(2)]
        await service(small[0].scope, small[0].receive, small[0].send)
        held.go.set()
        await asyncio.gather(*tasks)
        await service(small[1].scope, small[1].receive, small[1].send)
        return small, exchanges

    small, large_ones = asyncio.run(together())
    assert [one.status for one in small] == [503, 200]
    assert b"too_much_at_once" in small[0].sent[1]["body"]
    assert [one.status for one in large_ones] == [200, 200]


def test_a_body_that_was_refused_takes_no_room_while_the_rest_of_it_comes():
    service = small_service(max_bytes=100, max_concurrency=1, body_seconds=60)

    async def together():
        await until_ready(service)
        refused = Exchange(part(b" " * 101), hold=True)
        task = asyncio.create_task(service(refused.scope, refused.receive, refused.send))
        while refused.messages:
            await asyncio.sleep(0.01)
        other = Exchange(part(b'{"text": "good"}', more=False))
        await service(other.scope, other.receive, other.send)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return refused.status, other.status

    assert asyncio.run(together()) == (None, 200)


def metric_in_flight(service):
    return metric(service.metrics.scrape("")[0].decode(), "sparsedistill_requests_in_flight")


def test_an_error_of_ours_is_a_500_whose_log_line_does_not_tell_the_text(monkeypatch, caplog):
    service = small_service()

    def broken(texts, **options):
        raise RuntimeError(f"cannot stand {texts}")

    async def failing():
        await until_ready(service)
        monkeypatch.setattr(service.classifier, "answers", broken)
        async with client_of(service) as client:
            return await client.post("/v1/predict", json={"text": "my secret"})

    with caplog.at_level(logging.INFO):
        answer = asyncio.run(failing())
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text
    record = next(one for one in caplog.records if one.getMessage() == "a request failed")
    assert record.fields["error"] == "RuntimeError"
    assert record.fields["request_id"] == answer.headers["x-request-id"]
    assert any("broken" in frame for frame in record.fields["at"])
    assert "secret" not in str([vars(one) for one in caplog.records])


def test_an_error_in_a_route_that_is_not_the_fast_one_is_told_in_the_same_way(monkeypatch):
    service = small_service()
    monkeypatch.setattr(service.metrics, "scrape", lambda accept: 1 / 0)

    async def failing():
        await until_ready(service)
        async with client_of(service) as client:
            return await client.get("/metrics")

    answer = asyncio.run(failing())
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


def test_a_mistake_of_a_client_is_no_error_in_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        predict(small_service(), b"{")
    assert not caplog.records
