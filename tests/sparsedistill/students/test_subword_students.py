"""BiLSTM and CNN against loops in NumPy, their updates against torch's, and laws of a student."""

import numpy as np
import pytest
import torch
from helpers.random_bags import bags_of

from sparsedistill.errors import DataError
from sparsedistill.objectives import Hard, Soft
from sparsedistill.students.bilstm import BiLSTM
from sparsedistill.students.cnn import CNN
from sparsedistill.students.subwords import SubwordStudent
from sparsedistill.students.training import StudentTraining
from sparsedistill.targets import Targets
from sparsedistill.training.order import DataOrder

ROWS, WIDTH, HIDDEN, CLASSES = 40, 6, 5, 3
NETWORKS = {
    "bilstm": BiLSTM(ROWS, WIDTH, HIDDEN, CLASSES, 0.5),
    "deep bilstm": BiLSTM(ROWS, WIDTH, HIDDEN, CLASSES, 0.5, layers=3),
    "cnn": CNN(ROWS, WIDTH, HIDDEN, CLASSES, 0.5),
    "cnn of an even window": CNN(ROWS, WIDTH, HIDDEN, CLASSES, 0.5, window=4),
}
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def random_texts(rng, count, *, longest=12):
    """Token ids with an empty text, one of one token, and tokens that come twice."""
    texts = [rng.integers(0, ROWS, rng.integers(1, longest + 1)).tolist() for _ in range(count)]
    texts[0] = [7]
    texts[count // 2] = []
    texts[-1] = [3, 3, 5, 3]
    return bags_of(texts)


def student_of(network, *, seed=0, threads=1, embeddings=None, weights=None, **training):
    return SubwordStudent(
        network,
        training=StudentTraining(**training),
        seed=seed,
        threads=threads,
        embeddings=embeddings,
        weights=weights,
    )


def bytes_of(student):
    arrays = student.weights() | student.optimiser_state() | student.changed()
    return {name: value.tobytes() for name, value in arrays.items()}


def teach(student, texts, targets, objective, updates, *, rate=0.01, batch_size=20):
    """Train from the first to the last of some updates, as the loop does."""
    order = DataOrder(len(texts), batch_size, seed=0)
    losses = []
    for update in updates:
        ((_, rows),) = order.batches(update - 1, update)
        batch = student.prepare(texts, rows, update=update)
        losses.append(
            student.step(batch, targets.take(rows), objective, update=update, learning_rate=rate)
        )
    return losses


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bilstm_oracle(network, weights, tokens):
    states = weights["table"][list(tokens)].astype(np.float64)
    for layer in range(1, network.layers + 1):
        both = []
        for direction in ("ahead", "back"):
            name = f"lstm_{layer}_{direction}"
            seen = states if direction == "ahead" else states[::-1]
            output, cell = np.zeros((2, network.hidden))
            outputs = []
            for value in seen:
                gates = weights[f"{name}_input_weight"] @ value + weights[f"{name}_bias"]
                gates = gates + weights[f"{name}_state_weight"] @ output
                let_in, forget, new, let_out = np.split(gates, 4)
                cell = sigmoid(forget) * cell + sigmoid(let_in) * np.tanh(new)
                output = sigmoid(let_out) * np.tanh(cell)
                outputs.append(output)
            both.append(outputs if direction == "ahead" else outputs[::-1])
        states = np.concatenate(both, axis=1) if len(tokens) else np.zeros((0, 2 * network.hidden))
    pooled = states.max(axis=0) if len(tokens) else np.zeros(2 * network.hidden)
    return weights["head_weight"] @ pooled + weights["head_bias"]


def cnn_oracle(network, weights, tokens):
    vectors = weights["table"][list(tokens)].astype(np.float64)
    before = network.window // 2
    pooled = np.zeros(network.hidden)  # of ReLUs, so that zero is the least there is
    for place in range(len(tokens)):
        for unit in range(network.hidden):
            state = weights["window_bias"][unit]
            for offset in range(network.window):
                if 0 <= place + offset - before < len(tokens):
                    seen = vectors[place + offset - before]
                    state = state + seen @ weights["window_weight"][unit, :, offset]
            pooled[unit] = max(pooled[unit], state)
    return weights["head_weight"] @ pooled + weights["head_bias"]


def shaken(student):
    """Biases start at zero, where an oracle that forgets them would pass."""
    rng = np.random.default_rng(5)
    for name, value in student.weights().items():
        if name.endswith("bias"):
            value[...] = rng.standard_normal(value.shape)
    return student


@each_network
def test_logits_are_those_of_the_network_written_out_in_loops(network):
    student = shaken(student_of(network))
    texts = random_texts(np.random.default_rng(0), 40)
    oracle = bilstm_oracle if isinstance(network, BiLSTM) else cnn_oracle
    expected = [oracle(network, student.weights(), tokens) for tokens in texts]
    np.testing.assert_allclose(student.predict(texts), expected, rtol=1e-4, atol=1e-5)


@each_network
def test_the_logits_of_a_text_do_not_depend_on_the_others(network):
    student = shaken(student_of(network))
    texts = random_texts(np.random.default_rng(0), 20)
    alone = [student.predict(texts.take([row]))[0] for row in range(len(texts))]
    np.testing.assert_allclose(student.predict(texts), alone, atol=1e-6)
    assert student.predict(bags_of([])).shape == (0, CLASSES)


class TorchTwin:
    """The same network trained by torch alone: one graph over the batch, SparseAdam and AdamW."""

    def __init__(self, student, *, clip, weight_decay):
        self.network = student.network
        weights = {name: torch.tensor(value) for name, value in student.weights().items()}
        self.table = torch.nn.Embedding.from_pretrained(
            weights.pop("table"), freeze=False, sparse=True
        )
        self.dense = {name: value.requires_grad_() for name, value in weights.items()}
        self.clip = clip
        self.sparse = torch.optim.SparseAdam(self.table.parameters())
        matrices = [value for name, value in self.dense.items() if value.ndim > 1]
        biases = [value for name, value in self.dense.items() if value.ndim == 1]
        self.adam = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": weight_decay}, {"params": biases}],
            weight_decay=0.0,
        )

    def logits(self, tokens):
        vectors = self.table(torch.tensor(np.array(tokens, np.int64)))
        if isinstance(self.network, CNN):
            window = torch.nn.functional.conv1d(
                vectors.T[None], self.dense["window_weight"], self.dense["window_bias"], padding=3
            )
            pooled = torch.relu(window)[0].max(dim=1).values
        else:
            pooled = self.lstm(vectors).max(dim=0).values
        return self.dense["head_weight"] @ pooled + self.dense["head_bias"]

    def lstm(self, states):
        zero = torch.zeros(4 * HIDDEN)
        start = torch.zeros(2, 1, HIDDEN)
        for layer in (1, 2):
            parts = [
                part
                for way in ("ahead", "back")
                for part in (
                    self.dense[f"lstm_{layer}_{way}_input_weight"],
                    self.dense[f"lstm_{layer}_{way}_state_weight"],
                    self.dense[f"lstm_{layer}_{way}_bias"],
                    zero,
                )
            ]
            states = torch.lstm(
                states[None], (start, start), parts, True, 1, 0.0, True, True, True
            )[0][0]
        return states

    def step(self, texts, objective, targets, rate):
        logits = torch.stack([self.logits(tokens) for tokens in texts])
        objective(logits, targets).mean().backward()
        gradients = [self.table.weight.grad.coalesce().values()]
        gradients += [value.grad for value in self.dense.values()]
        length = torch.sqrt(sum(gradient.square().sum() for gradient in gradients))
        factor = min(1.0, self.clip / length.item())
        self.table.weight.grad *= factor
        for value in self.dense.values():
            value.grad *= factor
        for optimiser in (self.sparse, self.adam):
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()


@pytest.mark.parametrize("name", ["bilstm", "cnn"])
def test_updates_equal_those_of_torch_alone(name):
    student = shaken(student_of(NETWORKS[name], weight_decay=0.1, clip=0.3))
    twin = TorchTwin(student, weight_decay=0.1, clip=0.3)
    rng = np.random.default_rng(1)
    for update in range(1, 61):
        count = int(rng.integers(1, 40))
        texts = bags_of([rng.integers(0, ROWS, rng.integers(1, 9)).tolist() for _ in range(count)])
        targets = Targets(rng.standard_normal((count, CLASSES)).astype(np.float32))
        batch = student.prepare(texts, np.arange(count), update=update)
        student.step(batch, targets, Soft(2.0), update=update, learning_rate=0.01)
        twin.step(texts, Soft(2.0), targets, 0.01)
    found = student.weights()
    np.testing.assert_allclose(found["table"], twin.table.weight.detach().numpy(), atol=2e-4)
    for layer, value in twin.dense.items():
        np.testing.assert_allclose(found[layer], value.detach().numpy(), atol=2e-4, err_msg=layer)


@pytest.mark.parametrize("name", ["bilstm", "cnn"])
def test_it_learns_which_of_two_tokens_comes_first(name):
    # Both texts are the same bag, so that no DAN over single tokens could tell them apart.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    texts = []
    for label in labels:
        tokens = rng.integers(3, ROWS, rng.integers(2, 8)).tolist()
        pair = [1, 2] if label else [2, 1]
        at = int(rng.integers(0, len(tokens)))
        texts.append([*tokens[:at], *pair, *tokens[at:]])
    student = student_of(NETWORKS[name], dropout=0.1)
    losses = teach(
        student, bags_of(texts), Targets(labels=labels), Hard(), range(1, 301), rate=0.02
    )
    assert np.mean(losses[-15:]) < 0.1
    unseen = [[9, *pair, 17, 30] for pair in ([1, 2], [2, 1])]
    assert student.predict(bags_of(unseen))[:, :2].argmax(axis=1).tolist() == [1, 0]


REGULAR = {"dropout": 0.2, "feature_dropout": 0.1, "weight_decay": 0.01, "clip": 1.0}


def many_texts():
    rng = np.random.default_rng(3)
    texts = random_texts(rng, 90, longest=20)
    return texts, Targets(rng.standard_normal((90, CLASSES)).astype(np.float32))


@each_network
def test_a_run_that_goes_on_from_a_checkpoint_ends_in_the_same_bytes(network):
    texts, targets = many_texts()
    undisturbed = student_of(network, **REGULAR)
    teach(undisturbed, texts, targets, Soft(), range(1, 13))
    first = student_of(network, **REGULAR)
    teach(first, texts, targets, Soft(), range(1, 6))
    saved = {n: a.copy() for n, a in (first.weights() | first.optimiser_state()).items()}
    changed = {name: rows.copy() for name, rows in first.changed().items()}
    second = student_of(network, **REGULAR)
    second.load(saved)
    for name, rows in second.changed().items():
        rows[...] = changed[name]
    teach(second, texts, targets, Soft(), range(6, 13))
    assert bytes_of(second) == bytes_of(undisturbed)


@pytest.mark.parametrize("name", ["bilstm", "cnn"])
def test_the_number_of_threads_changes_no_byte(name):
    # Large enough that torch would use two threads of its own, and sum up in another order.
    kind = {"bilstm": BiLSTM, "cnn": CNN}[name]
    network = kind(ROWS, 64, 64, CLASSES, 0.5)
    texts, targets = many_texts()
    seen = []
    before = torch.get_num_threads()
    for threads, torch_threads in ((1, 1), (2, 1), (3, 2)):
        torch.set_num_threads(torch_threads)
        student = student_of(network, threads=threads, **REGULAR)
        teach(student, texts, targets, Soft(), range(1, 5), batch_size=70)
        seen.append(bytes_of(student) | {"logits": student.predict(texts).tobytes()})
        assert torch.get_num_threads() == torch_threads
    torch.set_num_threads(before)
    assert seen[0] == seen[1] == seen[2]


@each_network
def test_what_is_dropped_and_the_start_are_functions_of_the_seed_alone(network):
    texts, targets = many_texts()
    seen = []
    for seed, state in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(state)
        student = student_of(network, seed=seed, **REGULAR)
        teach(student, texts, targets, Soft(), range(1, 4))
        seen.append(bytes_of(student))
        assert torch.initial_seed() == state
    assert seen[0] == seen[1]
    assert seen[0]["table"] != seen[2]["table"]


@each_network
def test_dropout_is_another_for_each_text_of_a_batch_and_for_none_of_a_prediction(network):
    student = student_of(network, dropout=0.3)
    texts = bags_of([[1, 2, 3, 4]] * 40)
    seen = []

    def spying(logits, targets):
        seen.extend(logits.tolist())
        return Hard()(logits, targets)

    batch = student.prepare(texts, np.arange(40), update=1)
    labels = Targets(labels=np.zeros(40, np.int64))
    predicted = student.predict(texts)
    student.step(batch, labels, spying, update=1, learning_rate=0.0)
    assert len({tuple(row) for row in seen}) > 20  # more than go through the network together
    np.testing.assert_allclose(predicted, np.tile(predicted[0], (40, 1)), rtol=1e-6)


@each_network
def test_the_order_within_a_batch_changes_nothing_but_the_last_digits(network):
    texts, targets = many_texts()
    found = []
    for rows in (np.arange(90), np.random.default_rng(0).permutation(90)):
        student = student_of(network)
        batch = student.prepare(texts, rows, update=1)
        student.step(batch, targets.take(rows), Soft(), update=1, learning_rate=0.01)
        found.append(student.optimiser_state()["head_weight.exp_avg"].copy())
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-7)


@each_network
def test_a_batch_of_empty_texts_moves_no_embedding(network):
    student = student_of(network)
    before = student.weights()["table"].copy()
    texts = bags_of([[], []])
    batch = student.prepare(texts, np.arange(2), update=1)
    loss = student.step(
        batch, Targets(labels=np.array([0, 1])), Hard(), update=1, learning_rate=0.1
    )
    assert loss == pytest.approx(np.log(CLASSES))
    np.testing.assert_array_equal(student.weights()["table"], before)
    logits = student.predict(texts)
    np.testing.assert_array_equal(logits[0], logits[1])


@each_network
def test_a_loss_that_is_not_finite_changes_nothing(network):
    student = student_of(network)
    texts, targets = many_texts()
    teach(student, texts, targets, Soft(), [1])
    before = bytes_of(student)
    spoilt = targets.logits.copy()
    spoilt[11] = np.nan
    batch = student.prepare(texts, np.arange(90), update=2)
    with pytest.raises(DataError, match="loss at update 2 is nan"):
        student.step(batch, Targets(spoilt), Soft(), update=2, learning_rate=0.1)
    assert bytes_of(student) == before


def test_the_table_can_start_from_the_teachers_embeddings_which_stay_as_they_are():
    own = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
    kept = own.copy()
    student = student_of(NETWORKS["cnn"], embeddings=own)
    np.testing.assert_array_equal(student.weights()["table"], own)
    texts, targets = many_texts()
    teach(student, texts, targets, Soft(), [1])
    np.testing.assert_array_equal(own, kept)
    with pytest.raises(DataError, match=r"table is float32 \[40, 5\], expected float32 \[40, 6\]"):
        student_of(NETWORKS["cnn"], embeddings=own[:, :5])


@each_network
def test_a_student_made_from_weights_takes_the_table_over_and_copies_the_rest(network):
    first = student_of(network)
    weights = {name: value.copy() for name, value in first.weights().items()}
    second = student_of(network, seed=1, weights=weights)
    texts, targets = many_texts()
    np.testing.assert_array_equal(first.predict(texts), second.predict(texts))
    teach(second, texts, targets, Soft(), [1])
    assert np.shares_memory(second.weights()["table"], weights["table"])
    assert not np.shares_memory(second.weights()["head_weight"], weights["head_weight"])


def test_weights_that_do_not_fit_are_refused_and_nothing_has_changed():
    student = student_of(NETWORKS["cnn"])
    before = bytes_of(student)
    arrays = {name: value + 1 for name, value in student.weights().items()}
    for spoilt, message in (
        ({**arrays, "head_bias": arrays["head_bias"][:2]}, r"head_bias is float32 \[2\]"),
        ({**arrays, "head_bias": arrays["head_bias"].astype(np.float64)}, "float64"),
        ({**arrays, "tail": arrays["head_bias"]}, "tail .*expected nothing of that name"),
        ({n: a for n, a in arrays.items() if n != "window_bias"}, "lack window_bias"),
    ):
        with pytest.raises(DataError, match=message):
            student.load(spoilt)
        assert bytes_of(student) == before


def test_a_token_of_another_tokenizer_is_refused():
    student = student_of(NETWORKS["cnn"])
    with pytest.raises(DataError, match=r"token 40, the student knows 40: .*the tokenizer"):
        student.prepare(bags_of([[0, 40]]), np.arange(1), update=1)
    with pytest.raises(DataError, match="token 40"):
        student.predict(bags_of([[1], [40]]))
