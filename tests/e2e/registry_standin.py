#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A registry (OCI distribution API, pulling only) over OCI layouts, which can be told to misbehave.

registry_standin.py [FLAGS] PORTFILE NAME=LAYOUT...
  NAME is a repository, its tags are the names in LAYOUT/index.json. The port goes to PORTFILE once it listens.
  --port N          0: any
  --auth KIND       none, basic, bearer; --user USER:PASSWORD (u:p)
  --realm URL       where a bearer challenge points (this server's /token)
  --tls CERT,KEY    speaks TLS
  --cut N           each blob's first two answers end after N bytes
  --expire N        a token is good for N requests
  --slow N          at most N bytes a second, each connection
  --no-range        knows no ranges
  --redirect HOST   blobs are elsewhere: a redirect to that host (of this machine), where credentials must not arrive
  --lie WHAT        manifest, config or layer: those bytes are changed; more: blobs are longer than announced; huge: an endless manifest
  --log FILE        one line a request
"""
import argparse, base64, http.server, json, os, re, ssl, sys, threading, time

a = argparse.ArgumentParser()
for f in ("auth", "user", "realm", "tls", "redirect", "lie", "log"):
    a.add_argument("--" + f)
for f in ("port", "cut", "expire", "slow"):
    a.add_argument("--" + f, type=int, default=0)
a.add_argument("--no-range", action="store_true")
a.add_argument("portfile")
a.add_argument("repos", nargs="+")
o = a.parse_args()
o.user = o.user or "u:p"
repos = dict(r.split("=", 1) for r in o.repos)
lock = threading.Lock()
tokens, cuts = {}, {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, status):
        if o.log:
            with lock, open(o.log, "a") as f:
                print(status, self.path.split("?")[0], "auth" if self.headers.get("Authorization") else "-", self.headers.get("Range", "-"), file=f)

    def say(self, status, body=b"", kind="application/json", **headers):
        self.note(status)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.end_headers()
        self.wfile.write(body)

    def basic_ok(self):
        return self.headers.get("Authorization") == "Basic " + base64.b64encode(o.user.encode()).decode()

    def allowed(self):
        if o.auth == "basic":
            if self.basic_ok():
                return True
            self.say(401, WWW_Authenticate='Basic realm="here"')
            return False
        if o.auth == "bearer":
            t = self.headers.get("Authorization", "")
            with lock:
                if t.startswith("Bearer ") and tokens.get(t[7:], 0) > 0:
                    tokens[t[7:]] -= 1
                    return True
            scheme = "https" if o.tls else "http"
            realm = o.realm or f"{scheme}://127.0.0.1:{port}/token"
            repo = self.path.split("/v2/")[1].rsplit("/", 2)[0] if self.path.count("/") > 3 else ""
            self.say(401, WWW_Authenticate=f'Bearer realm="{realm}",service="standin",scope="repository:{repo}:pull"')
            return False
        return True

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/token":
            if o.user != "anonymous" and not self.basic_ok():
                return self.say(401)
            t = base64.b64encode(os.urandom(24)).decode()
            with lock:
                tokens[t] = o.expire or 10**9
            return self.say(200, json.dumps({"token": t}).encode())
        if path.startswith("/elsewhere/"):
            if self.headers.get("Authorization"):
                return self.say(400)
            repo, digest = re.fullmatch("/elsewhere/(.*)/([^/]*)", path).groups()
            return self.blob(repo, digest)
        if not path.startswith("/v2/"):
            return self.say(404)
        if not self.allowed():
            return
        if path == "/v2/":
            return self.say(200)
        m = re.fullmatch("/v2/(.*)/(manifests|blobs)/([^/]*)", path)
        if not m or m[1] not in repos:
            return self.say(404)
        repo, what, ref = m.groups()
        if what == "blobs":
            if o.redirect:
                return self.say(307, Location=f"{'https' if o.tls else 'http'}://{o.redirect}:{port}/elsewhere/{repo}/{ref}")
            return self.blob(repo, ref)
        layout = repos[repo]
        if not ref.startswith("sha256:"):
            for e in json.load(open(layout + "/index.json"))["manifests"]:
                if e.get("annotations", {}).get("org.opencontainers.image.ref.name") == ref:
                    ref = e["digest"]
        name = f"{layout}/blobs/sha256/{ref[7:]}"
        if not ref.startswith("sha256:") or not os.path.exists(name):
            return self.say(404)
        body = open(name, "rb").read()
        if o.lie == "manifest":
            body += b" "
        if o.lie == "huge":
            body = b"[" * (64 << 20)
        self.say(200, body, json.loads(body).get("mediaType", "application/vnd.oci.image.manifest.v1+json") if o.lie != "huge" else "x/y")

    def blob(self, repo, digest):
        name = f"{repos[repo]}/blobs/sha256/{digest[7:]}"
        if not os.path.exists(name):
            return self.say(404)
        body = open(name, "rb").read()
        is_config = body[:1] == b"{"
        if o.lie == ("config" if is_config else "layer"):
            body = body[:-1] + bytes([body[-1] ^ 1])
        if o.lie == "more":
            body += bytes(1000)
        start, status = 0, 200
        m = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if m and not o.no_range:
            start, status = int(m[1]), 206
            if start >= len(body):
                return self.say(416)
        part, limit = body[start:], len(body)
        with lock:
            cuts[digest] = cuts.get(digest, 0) + 1
            if o.cut and cuts[digest] <= 2:
                limit = o.cut
        self.note(status)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(part)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if limit < len(part):
            self.wfile.write(part[:limit])
            self.close_connection = True
            return
        step = max(1, o.slow // 20) if o.slow else 1 << 20
        for k in range(0, len(part), step):
            self.wfile.write(part[k : k + step])
            if o.slow:
                time.sleep(0.05)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("0.0.0.0" if o.redirect or o.port else "127.0.0.1", o.port), Handler)
port = server.server_address[1]
if o.tls:
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*o.tls.split(","))
    server.socket = c.wrap_socket(server.socket, server_side=True)
with open(o.portfile + ".tmp", "w") as f:
    f.write(str(port))
os.rename(o.portfile + ".tmp", o.portfile)
server.serve_forever()
