"""`denoised submit`: sends a job to a running daemon, shows its progress, saves its artifacts."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from pathlib import Path
from typing import Any

from ...config.load import load
from .progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `denoised submit --help`."""
    parser.add_argument("kind", metavar="KIND", help="job kind, such as defect-synthesis")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the daemon's configuration")
    parser.add_argument(
        "--param", action="append", default=[], metavar="K=V", help="one param, such as count=4 or image.path=part.png"
    )
    parser.add_argument("--params", type=Path, metavar="FILE.json", help="the params as a JSON file; --param goes over it")
    parser.add_argument("--id", help="the job's id; the same id with the same content never runs twice")
    parser.add_argument("--priority", type=int, help="0 to 9, higher first (4)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same bytes")
    parser.add_argument("--deadline-ms", type=int, metavar="MS", help="not worth finishing after this")
    parser.add_argument("--wait", action="store_true", help="wait for the result")
    parser.add_argument("--out", type=Path, metavar="DIR", help="wait, and save artifacts and result.json here")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="give up waiting after this (600)")
    parser.add_argument("--json", action="store_true", help="print the last reply as JSON")


def main(args: argparse.Namespace) -> int:
    """0 where the job was taken (with --wait: done), 1 where it was not, 2 on bad usage."""
    try:
        config = load(args.config)
        params = _params(args.params, args.param)
    except (ValueError, OSError) as e:
        print(f"denoised submit: {e}", file=sys.stderr)
        return 2
    wait = args.wait or args.out is not None
    request: dict[str, Any] = {"id": args.id or f"cli-{secrets.token_hex(6)}", "params": params}
    for name in ("priority", "seed", "deadline_ms"):
        if getattr(args, name) is not None:
            request[name] = getattr(args, name)
    if args.out is not None:
        request["deliver"] = "mqtt"
        args.out.mkdir(parents=True, exist_ok=True)
    from ..client import Client, NoBroker

    mine = f"{config.base}/jobs/{request['id']}"
    filters = [f"{mine}/event", f"{mine}/result", f"{mine}/artifact/+", f"{config.base}/jobs/refused"]
    try:
        with Client(config.mqtt, filters) as client:
            client.publish(f"{config.base}/jobs/{args.kind}/submit", request)
            last = _follow(client.messages(args.timeout), request["id"], mine, wait, args.out)
    except NoBroker as e:
        print(f"denoised submit: {e}", file=sys.stderr)
        return 1
    if last is None:
        print(f"denoised submit: no answer in {args.timeout:g} s; is the daemon running? (denoised status)", file=sys.stderr)
        return 1
    if args.out is not None:
        (args.out / "result.json").write_text(json.dumps(last, indent=2) + "\n")
    if args.json:
        print(json.dumps(last, indent=2))
    else:
        print(_words(last, args.out))
    return 0 if last["state"] == "done" or (not wait and "error" not in last) else 1


def _follow(messages: Any, job_id: str, mine: str, wait: bool, out: Path | None) -> dict[str, Any] | None:
    """The final reply, or the first one where nobody waits."""
    with Progress("job") as progress:
        for message in messages:
            if message.topic.startswith(f"{mine}/artifact/"):
                if out is not None:
                    (out / Path(message.topic).name).write_bytes(message.payload)
                continue
            reply: dict[str, Any] = json.loads(message.payload)
            if reply.get("id") != job_id:
                continue
            if not wait or message.topic.endswith(("/result", "/refused")):
                return reply
            steps = max(1, reply.get("items", 1)) * max(1, reply.get("steps", 1))
            done = reply.get("item", 0) * max(1, reply.get("steps", 1)) + reply.get("step", 0)
            progress.show(done / steps, reply["state"])
    return None


def _params(file: Path | None, pairs: list[str]) -> dict[str, Any]:
    params: Any = {}
    if file is not None:
        try:
            params = json.loads(file.read_text())
        except ValueError as e:
            raise ValueError(f"{file}: not JSON: {e}") from e
        if not isinstance(params, dict):
            raise ValueError(f"{file}: expected a JSON object of params, found {type(params).__name__}")
    for pair in pairs:
        path, separator, text = pair.partition("=")
        if not separator or not path:
            raise ValueError(f"--param {pair}: expected K=V, such as count=4 or image.path=part.png")
        at = params
        *parents, key = path.split(".")
        for parent in parents:
            at = at.setdefault(parent, {})
            if not isinstance(at, dict):
                raise ValueError(f"--param {pair}: '{parent}' is a value already, not an object")
        try:
            at[key] = json.loads(text)
        except ValueError:
            at[key] = text
    return dict(params)


def _words(reply: dict[str, Any], out: Path | None) -> str:
    if "error" in reply:
        error = reply["error"]
        place = f" ({error['field']})" if error.get("field") else ""
        return f"{reply['id']} {reply['state']}: {error['code']}{place}: {error['message']}"
    text = f"{reply['id']} {reply['state']}"
    if "run_ms" in reply:
        text += f", {reply['run_ms']} ms, {len(reply['artifacts'])} artifacts"
        if out is not None:
            text += f" in {out}"
        elif reply["artifacts"]:
            text += f" in {Path(reply['artifacts'][0]['path']).parent}"
    return text
