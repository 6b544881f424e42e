"""The page that shows the OpenAPI document.

Made here, of plain HTML: the usual pages fetch their scripts from elsewhere, which a service that
is not on the internet cannot do, and should not ask its readers to trust.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

_TRY = """
const form = document.querySelector('form'), out = document.querySelector('#answer');
form.addEventListener('submit', async event => {
  event.preventDefault();
  const answer = await fetch(form.dataset.path, {
    method: 'POST', headers: {'content-type': 'application/json'}, body: form.body.value});
  out.textContent = answer.status + '\\n' + JSON.stringify(await answer.json(), null, 2);
});
"""
_STYLE = Path(__file__).with_name("docs_page.css").read_text("utf-8")


def _digest(inline: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() + "'"


SECURITY_POLICY = (
    f"default-src 'none'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
    f"form-action 'none'; script-src {_digest(_TRY)}; style-src {_digest(_STYLE)}"
)
"""What the page may do: run its own script, ask its own service, and nothing else."""


def docs_page(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = document["info"]
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        _schema(name, schema)
        for name, schema in sorted(document.get("components", {}).get("schemas", {}).items())
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('description', ''))} "
        f'Version {escape(info["version"])}; <a href="openapi.json">openapi.json</a>.</p>'
        f"{operations}<h2>Schemas</h2>{schemas}<script>{_TRY}</script></body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{_answer_type(answer)}</td>"
        f"<td>{escape(answer.get('description', ''))}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<section><h2><b>{method.upper()}</b> <code>{escape(path)}</code></h2>"
        f"<p>{escape(operation.get('summary', ''))}</p>"
        f"{_request(path, body['schema']) if body else ''}"
        f"<h3>Answers</h3><table>{answers}</table></section>"
    )


def _request(path: str, schema: dict[str, Any]) -> str:
    examples = [json.dumps(example) for example in schema.get("examples", [{}])]
    shown = "".join(
        f"<pre>curl -s http://HOST:PORT{escape(path)} -H 'content-type: application/json' "
        f"-d '{escape(example, quote=False)}'</pre>"
        for example in examples
    )
    return (
        f"<h3>Request</h3>{_fields(schema)}{shown}"
        f'<form data-path="{escape(path.removeprefix("/"))}"><textarea name="body" rows="4">'
        f"{escape(examples[0])}</textarea><button>Try it</button></form>"
        f'<pre id="answer"></pre>'
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3>'
        f"<p>{escape(schema.get('description', ''))}</p>{_fields(schema)}</section>"
    )


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' *' if name in required else ''}</td>"
        f"<td>{_type(field)}</td><td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table>{rows}</table>"


def _answer_type(answer: dict[str, Any]) -> str:
    for kind, content in answer.get("content", {}).items():
        return _type(content["schema"]) if content.get("schema") else f"{escape(kind)}"
    return ""


def _type(schema: dict[str, Any]) -> str:
    """What a value may be, in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    kind = schema.get("type", "any")
    if kind == "array":
        most = f" (at most {schema['maxItems']})" if "maxItems" in schema else ""
        return f"list of {_type(schema.get('items', {}))}{most}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    bounds = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", "≥"), ("maximum", "≤"))
        if key in schema
    ]
    return f"{escape(kind)}{' ' + ', '.join(bounds) if bounds else ''}"
