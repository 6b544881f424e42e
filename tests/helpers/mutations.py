"""What can be wrong with a model's files and with texts, each a pure function of bytes and a seed.

Some of a good model's files are changed. Damaged ones are left at that; in hostile ones sizes and
digests are then made to fit, so that only what a file says can give it away.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
from contextlib import suppress

import zstandard

from sparsedistill.model_format import config_digest

CONFIG, MODEL = "config.json", "model.safetensors"
VALUES = [
    None, True, False, 0, -1, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**400,
    0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), "", "x", "x" * 5000, "../x",
    "\ud800", "a\0b", "float16", "int8", "F64", "tanh", "0", [], {}, [[]], [1, 2], {"x": 1},
    [0, 0], [0, 2**62], [2**62, 0], [2**32, 2**32], [-1, 4], ["a"] * 3,
]  # fmt: skip


BASE = [
    "The film was good, not bad at all", "ОЧЕНЬ хороший ФИЛЬМ", "Ο ΦΊΛΟΣ ΜΟΥ ΟΔΟΣ",
    "هذا فيلم جيد جدا", "סרט טוב מאוד", "यह एक अच्छी फिल्म है",
    "这部电影很好看", "とても良い映画でした",
    "정말 좋은 영화", "ภาพยนตร์ที่ดีมาก", "İSTANBUL ıi ŞEKER", "ﬁlm ﬀ ß ẞ Ǆ ǅ",
    "e\u0301 n\u0303 o\u0308\u0323",
    "👩‍👩‍👧‍👦 🇩🇪 👍🏽", "the\u00a0film\u2003was\u200bgood",
    "𝔉𝔦𝔩𝔪 𝟘𝟙 𐐀𐐨 𞤀𞤢", "ქართული ᲥᲐᲠᲗᲣᲚᲘ", "ᏣᎳᎩ ꭰꭱ",
    "very bad film the film not good", "of " * 40,
]  # fmt: skip


def mutate_bytes(content: bytes, seed: int) -> bytes:
    """Change a few bits, bytes or runs; cut, lengthen, repeat or move a part."""
    rng = random.Random(seed)
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        size = len(data)
        at = rng.randrange(size + 1)
        length = min(rng.choice([1, 2, 4, 8, 16, 64, 1 << 12]), size - at)
        part = slice(at, at + length)
        match rng.choice("bbbrrsctdwl"):
            case "b":
                for _ in range(rng.choice([1, 1, 3, 20]) if size else 0):
                    data[rng.randrange(size)] ^= 1 << rng.randrange(8)
            case "r":
                same = bytes([rng.choice([0, 1, 0x7F, 0x80, 0xFF])]) * length
                data[part] = rng.choice([same, rng.randbytes(length)])
            case "c":
                del data[at:]
            case "s":
                del data[part]
            case "d":
                data[at:at] = data[part]
            case "l":
                data += rng.choice([b"\0", b"\n", rng.randbytes(9), bytes(5000)])
            case _:
                number = rng.choice([0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1])
                place = at // 8 * 8
                data[place : place + 8] = struct.pack("<Q", number)
    return bytes(data)


def mutate_json(content: bytes, seed: int) -> bytes:
    """Change one value anywhere in a JSON object; or repeat, lose or rename a key."""
    rng = random.Random(seed)
    value = json.loads(content)
    inner = rng.choice([one for one in _objects(value) if one])
    key = rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    action = rng.randrange(8)
    rename = "\0"
    if action <= 2:
        inner[key] = rng.choice(VALUES)
    elif action == 3:
        inner[key] = _near(inner[key], rng)
    elif action == 4 and isinstance(inner, dict):
        inner["\0"], rename = rng.choice([*VALUES, inner[key]]), str(key)
    elif action == 5:
        del inner[key]
    elif action == 6 and isinstance(inner, dict):
        inner[rng.choice(["", "x", "../x", str(key).upper(), "\ud800"])] = inner.pop(key)
    else:
        depth = rng.choice([3, 200, 100_000])
        inner[key] = "\1"
        nested = rng.choice(["[" * depth + "]" * depth, '{"":' * depth + "1" + "}" * depth])
        return json.dumps(value).replace('"\\u0001"', nested).encode()
    return json.dumps(value).replace('"\\u0000"', json.dumps(rename)).encode()


def mutate_tensors(content: bytes, seed: int) -> bytes:
    """Change the header of a safetensors file, or what it says of its length, or some numbers."""
    rng = random.Random(seed)
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    action = rng.randrange(6)
    if action <= 1:
        header = mutate_json(header, seed)
        length = len(header)
    elif action == 2:
        length = rng.choice([0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1])
    elif action == 3:
        header = mutate_bytes(header, seed)
        length = len(header)
    elif action == 4:
        data = mutate_bytes(data, seed)
    else:
        word = rng.choice([b"\xff" * 8, struct.pack("<Q", rng.getrandbits(64)), rng.randbytes(8)])
        first = rng.randrange(len(data) // 8 + 1) * 8 if rng.random() < 0.5 else 0
        data = data[:first] + (word * (len(data) // 8 + 1))[: len(data) - first]
    return struct.pack("<Q", length) + header + data


def mutate_strings(content: bytes, seed: int) -> bytes:
    """Other strings than there were, well compressed; also very many bytes in few."""
    rng = random.Random(seed)
    lines = zstandard.ZstdDecompressor().decompress(content)
    action = rng.randrange(5)
    if action <= 2:
        return zstandard.ZstdCompressor().compress(mutate_bytes(lines, seed))
    if action == 3:
        bomb = zstandard.ZstdCompressor(write_content_size=rng.random() < 0.5)
        return bomb.compress(bytes(rng.choice([10, 1 << 20, 80 << 20])))
    # A frame that says it holds 2**62 bytes.
    return b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**62) + content[6:]


def mutate_model(files: dict[str, bytes], seed: int) -> tuple[dict[str, bytes], bool]:
    """Change some of a model's files; whether digests were made to fit."""
    rng = random.Random(seed)
    changed, names = dict(files), sorted(files)
    for _ in range(rng.choice([1, 1, 1, 2])):
        name = rng.choice(names)
        special = {CONFIG: mutate_json, "ngrams.txt.zst": mutate_strings}.get(name, mutate_tensors)
        action = rng.randrange(12)
        number = rng.getrandbits(32)
        if action <= 4:
            changed[name] = mutate_bytes(changed.get(name, b""), number)
        elif action <= 10:
            # What was changed before may no longer be of its kind.
            changed[name] = special(files[name], number)
        elif rng.random() < 0.5:
            changed[name] = files[rng.choice(names)]
        else:
            changed.pop(name, None)
    sealed = rng.random() < 0.5
    return (seal(changed) if sealed else changed), sealed


def seal(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with a `config.json` whose sizes and digests are theirs, if it still is one."""
    try:
        config = json.loads(files[CONFIG])
        for name, content in files.items():
            if name in config["files"]:
                digest = hashlib.sha256(content).hexdigest()
                config["files"][name].update(bytes=len(content), sha256=digest)
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            config["layers"] = _layers(files[MODEL])
        config.pop("digest", None)
        config["digest"] = config_digest(config)
        return {**files, CONFIG: json.dumps(config).encode()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return files


def _layers(content: bytes) -> str:
    """The digest of all tensors but the table, by name."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    digest = hashlib.sha256()
    for name in sorted(set(header) - {"table", "__metadata__"}):
        first, last = header[name]["data_offsets"]
        digest.update(content[8 + length :][first:last])
    return digest.hexdigest()


def _objects(value):
    """The objects and lists in a JSON value, itself among them."""
    found = [value] if isinstance(value, dict | list) else []
    inner = value.values() if isinstance(value, dict) else value if found else []
    return found + [one for part in inner for one in _objects(part)]


def _near(value, rng):
    """A value like another, and wrong."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | list):
        return [value]
    if isinstance(value, str):
        return rng.choice([value[:-1], value + "x", value.upper(), value[::-1], 1])
    if isinstance(value, list):
        return rng.choice([value[::-1], value[:-1], value * 2, [*value, *value[:1]]])
    return rng.choice([value + 1, value - 1, -value, value * 2, value / 2, str(value), [value]])


def mutate_text(seed: int, ngrams: list[str]) -> str | bytes:
    """A text of some script with something wrong; bytes if it may have no form as a string."""
    rng = random.Random(seed)
    text = rng.choice(BASE)
    action = rng.randrange(16)
    if action == 0:
        planes = rng.choice([(0, 0x250), (0, 0x3000), (0x3000, 0x10000), (0, 0x110000)])
        points = [rng.randrange(*planes) for _ in range(rng.randrange(1, 40))]
        return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
    if action == 1:
        return text + rng.choice(["a", "é", "中", "\0", " ", "\u0301", "İ", "good "]) * (
            rng.choice([50, 300, 70_000]) if rng.random() < 0.01 else 20
        )
    if action == 2:
        words = [rng.choice([*ngrams, "x", "unknown", "\0"]) for _ in range(rng.randrange(12))]
        return rng.choice([" ", ", ", "\t\n", "\u2028"]).join(words)
    if action == 3:
        return "".join(rng.sample(text, len(text)))
    mutated = mutate_bytes(text.encode(), rng.getrandbits(32))
    return mutated if action < 8 else mutated.decode("utf-8", "replace")
