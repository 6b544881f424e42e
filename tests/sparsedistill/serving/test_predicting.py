"""What a request for predictions is answered with."""

import asyncio
import json

import numpy as np
import pytest
from helpers.small_service import (
    LABELS,
    THRESHOLDS,
    ask,
    client_of,
    predict,
    small_classifier,
    small_service,
    until_ready,
)

from sparsedistill import __version__
from sparsedistill.serving import predictor
from sparsedistill.serving.schema import ManyPredictions, OnePrediction

TEXTS = ["the good film", "a very bad film", "", "nothing known", "GOOD\x00film", "ὈΔΥΣΣΕΎΣ 🙂"]


def test_one_text_gives_one_object_that_names_the_model(service):
    answer = predict(service, {"text": "the good film"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    classifier = service.classifier
    assert answer.json() == {
        "model": "small",
        "prediction": {
            "label": classifier.predict("the good film"),
            "probability": pytest.approx(classifier.predict_proba("the good film").max(), abs=1e-6),
        },
    }


def test_many_texts_give_as_many_predictions_in_their_order(service):
    found = predict(service, {"texts": TEXTS}).json()["predictions"]
    assert [one["label"] for one in found] == service.classifier.predict(TEXTS)
    assert predict(service, {"texts": TEXTS[::-1]}).json()["predictions"] == found[::-1]


def test_no_texts_give_no_predictions_as_a_loop_over_batches_may_come_to_that(service):
    assert predict(service, {"texts": []}).json() == {"model": "small", "predictions": []}


def test_what_was_not_asked_for_is_not_there(service):
    assert set(predict(service, {"text": "x"}).json()["prediction"]) == {"label", "probability"}


def test_everything_that_can_be_asked_for_is_what_the_classifier_says(service):
    asked = {"top_k": 2, "proba": True, "coverage": True, "explain": 2}
    found = predict(service, {"texts": TEXTS, **asked}).json()["predictions"]
    answers = service.classifier.answers(TEXTS)
    top = service.classifier.predict_topk(TEXTS, 2)
    for text, one, probabilities, coverage, best in zip(
        TEXTS, found, answers.probabilities, answers.coverage, top, strict=True
    ):
        assert list(one["probabilities"]) == list(LABELS)
        np.testing.assert_allclose(list(one["probabilities"].values()), probabilities, atol=1e-6)
        assert one["coverage"] == pytest.approx(coverage, abs=1e-6)
        assert [(t["label"], pytest.approx(t["probability"], abs=1e-6)) for t in one["top"]] == best
        explanation = service.classifier.explain(text)
        towards = explanation.towards(explanation.label)
        assert one["explanation"]["label"] == explanation.label == one["top"][0]["label"]
        assert [n["ngram"] for n in one["explanation"]["ngrams"]] == [n for n, _ in towards[:2]]
        assert one["explanation"]["omitted"] == max(0, len(towards) - 2)


def test_more_labels_than_there_are_is_all_of_them(service):
    top = predict(service, {"text": "x", "top_k": 10**6}).json()["prediction"]["top"]
    assert {one["label"] for one in top} == set(LABELS)


@pytest.mark.parametrize(
    "threshold", [0.0, 0.5, 1, {"positive": 0.9}, {}, {"negative": 1, "neither": 0.2}]
)
def test_below_the_threshold_there_is_no_label_but_a_probability(service, threshold):
    asked = {"texts": TEXTS, "abstain_below": threshold}
    found = predict(service, asked).json()["predictions"]
    expected = service.classifier.predict(TEXTS, abstain_below=threshold)
    assert [one["label"] for one in found] == expected
    assert all(one["probability"] > 0 for one in found)


def test_the_thresholds_that_came_with_the_model_can_be_asked_for(service):
    found = predict(service, {"texts": TEXTS, "abstain_below": "model"}).json()["predictions"]
    expected = service.classifier.predict(TEXTS, abstain_below=THRESHOLDS)
    assert [one["label"] for one in found] == expected


def test_answers_are_what_the_document_says_they_are(service):
    asked = {"top_k": 2, "proba": True, "coverage": True, "explain": 2}
    one = predict(service, {"text": TEXTS[0], **asked}).json()
    many = predict(service, {"texts": TEXTS, "abstain_below": 0.9}).json()
    OnePrediction.model_validate(one, extra="forbid")
    ManyPredictions.model_validate(many, extra="forbid")


def test_a_batch_that_goes_to_a_thread_is_answered_as_one_that_does_not(service):
    many = TEXTS * 100
    assert len(json.dumps({"texts": many})) > predictor.DIRECT_BYTES
    small = predict(service, {"texts": TEXTS}).json()["predictions"]
    assert predict(service, {"texts": many}).json()["predictions"] == small * 100


def test_requests_at_the_same_time_do_not_mix():
    service = small_service(threads=2)
    bodies = [{"texts": [TEXTS[i % 5], TEXTS[i % 3]] * (i + 1)} for i in range(60)]
    bodies += [{"text": text} for text in TEXTS]

    async def together():
        await until_ready(service)
        async with client_of(service) as client:
            return await asyncio.gather(*(client.post("/v1/predict", json=body) for body in bodies))

    for body, answer in zip(bodies, asyncio.run(together()), strict=True):
        found = answer.json()
        expected = service.classifier.predict(body.get("texts", [body.get("text")]))
        predictions = found.get("predictions", [found.get("prediction")])
        assert [one["label"] for one in predictions] == expected


def test_the_model_says_what_it_is(service):
    found = ask(service, "/v1/model").json()
    folded = service.classifier.folded
    expected = {
        "name": "small",
        "labels": list(LABELS),
        "rows": len(folded.index),
        "hidden": 16,
        "dtype": "float32",
        "thresholds": THRESHOLDS,
        "ngrams": folded.spec.to_json(),
        "version": __version__,
    }
    assert expected.items() <= found.items()


def test_a_classifier_may_serve_two_services():
    classifier = small_classifier()
    first, second = small_service(classifier), small_service(classifier)
    assert predict(first, {"text": "good"}).json() == predict(second, {"text": "good"}).json()
