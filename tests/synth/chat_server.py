"""A chat endpoint that misbehaves on purpose, for the tests of the teacher's client.

    chat_server.py LOG [REDIRECT_TO]      prints its port, then serves until stdin is closed

What it does with a request is written in the request's text: the first of these words that is in it,
N times for the same request body, then it answers.
    [429xN]  [429xN after S]     status 429, with Retry-After: S
    [500xN]  [503xN]             that status
    [slowxN S]                   the reply comes after S seconds
    [cutxN]                      half of a reply, then the connection is closed
    [dropxN]                     the connection is closed without a reply
    [400] [401] [403] [404] [402] [quota]   always
    [nojson] [html200] [schema] [wrapped] [events]   status 200, but no completion
    [endless]                    a reply without end
    [redirect]                   to REDIRECT_TO
    [hold]                       answers once LOG.release exists
    [leave]                      answers, and then nobody listens any more
    [away]                       the same, until LOG.release exists
    [echo]                       status 400, whose message repeats the Authorization header
Answers are those of the words [score S] (5), [scores A B C] in the order of the requests of one body,
[field] (the reasoning in its own field), [parts], [prose], [long], [bare], [nousage], [model NAME].
Of a comparison: the document with the larger [worth W] wins; equal ones tie.

LOG gets a line for each request as it comes: JSON with the body's digest, its text's first line that
holds a [, the time, and of the headers whether there was an Authorization.
"""

import hashlib
import http.server
import json
import os
import re
import sys
import threading
import time

log_path = sys.argv[1]
redirect_to = sys.argv[2] if len(sys.argv) > 2 else ""
lock = threading.Lock()
seen = {}


def note(line):
    with lock, open(log_path, "a") as log:
        log.write(json.dumps(line) + "\n")


def answer_of(text, number):
    """The content, the reasoning's field, the finish reason."""
    worths = [float(w) for w in re.findall(r"\[worth ([0-9.]+)\]", text)]
    if "Here is document 2:" in text and len(worths) == 2:
        score = 0 if worths[0] == worths[1] else 1 if worths[0] > worths[1] else 2
    elif found := re.search(r"\[scores ([0-9 ]+)\]", text):
        scores = found.group(1).split()
        score = scores[number % len(scores)]
    else:
        found = re.search(r"\[score ([0-9]+)\]", text)
        score = found.group(1) if found else 5
    thought = f"It is about {score}."
    if "[prose]" in text:
        return f"I would say {score}.", None, "stop"
    if "[long]" in text:
        return "<think>and so on and so on", None, "length"
    if "[bare]" in text:
        return f"<answer>{score}</answer>", None, "stop"
    if "[field]" in text:
        return f"\n\n<answer>{score}</answer>", thought, "stop"
    return f"<think>{thought}</think><answer>{score}</answer>", None, "stop"


def completion(text, number):
    content, reasoning, finish = answer_of(text, number)
    message = {"role": "assistant", "content": content}
    if reasoning is not None:
        message["reasoning_content"] = reasoning
    if "[parts]" in text:
        message["content"] = [{"type": "text", "text": content[:5]}, {"type": "text", "text": content[5:]}]
    model = re.search(r"\[model ([a-z0-9-]+)\]", text)
    reply = {
        "id": "x",
        "object": "chat.completion",
        "model": model.group(1) if model else "teacher-1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    if "[nousage]" not in text:
        reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return reply


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def cut(self, data):
        self.wfile.write(data)
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        digest = hashlib.sha256(raw).hexdigest()
        text = json.loads(raw)["messages"][0]["content"]
        with lock:
            number = seen.get(digest, 0)
            seen[digest] = number + 1
        mark = " ".join(re.findall(r"\[[^\],]*\]", text))
        note(
            {
                "request": digest,
                "mark": mark,
                "time": time.monotonic(),
                "authorized": "Authorization" in self.headers,
                "path": self.path,
                "body": json.loads(raw) | {"messages": None},
            }
        )
        try:
            self.misbehave(text, number)
            note({"done": digest, "mark": mark})
        except (BrokenPipeError, ConnectionResetError):
            pass

    def misbehave(self, text, number):
        def error(message, code=None):
            return {"error": {"message": message, "type": "x", "code": code}}

        for status in ("429", "500", "503"):
            found = re.search(r"\[" + status + r"x([0-9]+)(?: after ([0-9.]+))?\]", text)
            if found and number < int(found.group(1)):
                headers = [("Retry-After", found.group(2))] if found.group(2) else []
                return self.reply(int(status), error("not now"), headers)
            number -= int(found.group(1)) if found else 0
        found = re.search(r"\[slowx([0-9]+) ([0-9.]+)\]", text)
        if found and number < int(found.group(1)):
            time.sleep(float(found.group(2)))
        found = re.search(r"\[(cut|drop)x([0-9]+)\]", text)
        if found and number < int(found.group(2)):
            half = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"choices\": [" if found.group(1) == "cut" else b""
            return self.cut(half)
        for status in ("400", "401", "402", "403", "404"):
            if f"[{status}]" in text:
                return self.reply(int(status), error(f"this is a {status}"))
        if "[quota]" in text:
            return self.reply(429, error("You exceeded your quota", "insufficient_quota"))
        if "[nojson]" in text:
            return self.reply(200, b'{"choices": [')
        if "[html200]" in text:
            return self.reply(200, b"<html>\n<p>gateway</p></html>")
        if "[schema]" in text:
            return self.reply(200, {"choices": [{"text": "an older form"}]})
        if "[wrapped]" in text:
            return self.reply(200, error("the provider is down", 502 if number < 1 else 400))
        if "[events]" in text:
            return self.reply(200, b'data: {"choices": []}\n\n')
        if "[redirect]" in text:
            return self.reply(307, b"", [("Location", redirect_to)])
        if "[echo]" in text:
            return self.reply(400, error("bad header: " + self.headers.get("Authorization", "")))
        if "[endless]" in text:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                self.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        while "[hold]" in text and not os.path.exists(log_path + ".release"):
            time.sleep(0.01)
        if "[leave]" in text or "[away]" in text:
            server.shutdown()
            server.server_close()
            if "[away]" in text:
                threading.Thread(target=come_back, daemon=True).start()
            return self.reply(200, completion(text, number), [("Connection", "close")])
        self.reply(200, completion(text, number))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def listen(port):
    global server
    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()


def come_back():
    port = server.server_address[1]
    while not os.path.exists(log_path + ".release"):
        time.sleep(0.01)
    listen(port)
    note({"back": port})


listen(0)
print(server.server_address[1], flush=True)
sys.stdin.read()
os._exit(0)
