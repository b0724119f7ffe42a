"""A server on this machine that speaks as much of OpenAI's protocol as an evaluation asks for.

It writes prompts with transformers' own chat templates, as vLLM does, and answers by a script.
"""

import base64
import io
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image


@dataclass
class Seen:
    """One request.

    Attributes:
        path: Of the request.
        body: What was sent.
        headers: Likewise.
        prompt: The text that the model would read, placeholders in it.
        sizes: Of the pictures.
    """

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    prompt: str = ""
    sizes: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class StubServer:
    """What the server knows, does and has seen.

    Attributes:
        processor: Its tokenizer and template are the server's.
        reply: Called with a `Seen`; gives text and finish reason, or a status and a body.
        seen: All requests.
    """

    processor: Any
    reply: Any
    url: str = ""
    seen: list[Seen] = field(default_factory=list)

    def answer(self, seen):
        """Return status and body."""
        self.seen.append(seen)
        body = seen.body
        if "messages" in body and seen.path.endswith("/chat/completions"):
            try:
                seen.prompt = self._render(seen)
            except ValueError as error:
                return 400, {"error": {"message": str(error), "code": 400}}
        said = self.reply(seen)
        if isinstance(said[0], int):
            return said
        message, reason = said
        if isinstance(message, str):
            message = {"role": "assistant", "content": message}
        text = "".join(message[name] or "" for name in message if name != "role")
        usage = {
            "prompt_tokens": self._length(seen.prompt) + 3 * len(seen.sizes),
            "completion_tokens": self._length(text),
        }
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return 200, {"object": "chat.completion", "choices": [choice], "usage": usage}

    def _length(self, text):
        for placeholder in ("<image>", "<video>"):
            text = text.replace(placeholder, "")
        return len(self.processor.tokenizer.encode(text, add_special_tokens=False))

    def _render(self, seen):
        body = seen.body
        messages = [
            {**message, "content": self._parts(message["content"], seen)}
            for message in body["messages"]
        ]
        return self.processor.tokenizer.apply_chat_template(
            messages,
            chat_template=body.get("chat_template", self.processor.chat_template),
            add_generation_prompt=body.get("add_generation_prompt", True),
            continue_final_message=body.get("continue_final_message", False),
            tokenize=False,
            **body.get("chat_template_kwargs", {}),
        )

    def _parts(self, content, seen):
        if isinstance(content, str):
            return content
        parts = []
        for part in content:
            if part["type"] == "text":
                parts.append(part)
                continue
            kind = part["type"].removesuffix("_url")
            _, _, data = part[part["type"]]["url"].partition(";base64,")
            for picture in data.split(","):
                image = Image.open(io.BytesIO(base64.b64decode(picture, validate=True)))
                seen.sizes.append(image.size)
            parts.append({"type": kind})
        return parts


@contextmanager
def serving(processor, reply):
    """Run a server on a free port of the loopback for a while."""
    stub = StubServer(processor, reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            body = json.loads(self.rfile.read(length))
            seen = Seen(self.path, body, {k.lower(): v for k, v in self.headers.items()})
            status, answer = stub.answer(seen)
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            if status == 0:
                self.connection.close()
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format, *args):  # noqa: A002
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
