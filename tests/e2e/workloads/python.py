# SPDX-License-Identifier: Apache-2.0
"""A tour of CPython whose output depends on nothing but the CPU's arithmetic: any difference is a wrong result."""
import decimal
import fractions
import hashlib
import json
import math
import os
import random
import sqlite3
import struct
import subprocess
import sys
import threading
import zlib

rng = random.Random(20261123)


def show(name, value):
    text = value if isinstance(value, str) else repr(value)
    print(name, text if len(text) < 200 else hashlib.sha256(text.encode()).hexdigest())


# floats: every bit counts, so hexadecimal
xs = [rng.uniform(-1e3, 1e3) for _ in range(2000)]
show("sum", math.fsum(xs).hex())
for f in (math.sin, math.cos, math.tan, math.exp, math.atan, math.sinh, math.erf, math.cbrt, math.expm1):
    show(f.__name__, "".join(f(x / 100).hex() for x in xs))
for f in (math.log, math.sqrt, math.log2, math.log10, math.log1p, math.gamma, math.lgamma):
    show(f.__name__, "".join(f(abs(x) / 10 + 1e-9).hex() for x in xs))
show("pow", "".join(math.pow(abs(x), x / 500).hex() for x in xs))
show("fmod", "".join(math.fmod(x, 0.7).hex() for x in xs))
show("repr", "".join(repr(x) for x in xs))
show("strtod", "".join(float(repr(x * 1e-300)).hex() for x in xs))
show("round", "".join(repr(round(x, 3)) + str(math.floor(x)) + str(math.ceil(x)) + str(int(x)) for x in xs))
show("special", [math.inf - math.inf != 0, 5e-324 / 2, 1.7976931348623157e308 * 2, -0.0, math.copysign(1, -0.0), 0.1 + 0.2])
show("complex", repr(sum((complex(a, b) ** 2 for a, b in zip(xs[::2], xs[1::2])), 0j)))
show("float32", struct.pack("2000f", *xs).hex())

# big integers
n = 1
for i in range(1, 1500):
    n *= i
show("factorial", str(n))
show("powmod", pow(0xDEADBEEF, n, (1 << 521) - 1))
a, b = rng.getrandbits(4000), rng.getrandbits(1999)
show("divmod", divmod(a, b))
show("isqrt", math.isqrt(a))
show("gcd", math.gcd(n, a * 1024))
show("bits", [(a >> s) & 0xFFFF for s in range(0, 4000, 97)])

# decimal, fractions
decimal.getcontext().prec = 120
show("decimal", [str(decimal.Decimal(2).sqrt()), str(decimal.Decimal(1) / 7), str(decimal.Decimal("1.1").ln()), str(decimal.Decimal(3).exp())])
show("fraction", str(sum(fractions.Fraction(1, i) for i in range(1, 200))))

# threads: the total is exact whatever the order
lock, total = threading.Lock(), [0]


def work(k):
    s = sum((i * k) % 97 for i in range(20000))
    with lock:
        total[0] += s


threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
show("threads", total[0])

# processes
show("subprocess", [subprocess.run(["sh", "-c", f"echo $(({i} * {i}))"], capture_output=True, text=True).stdout.strip() for i in range(10)])
show("pipe", subprocess.run([sys.executable, "-c", "import sys; d = sys.stdin.buffer.read(); print(len(d), sum(d))"],
                            input=bytes(range(256)) * 2000, capture_output=True).stdout.decode().strip())
r, w = os.pipe()
if (pid := os.fork()) == 0:
    os.write(w, b"child " + str(2 ** 200).encode())
    os._exit(7)
os.close(w)
show("fork", [os.read(r, 100).decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])])

# json, hashes, compression
doc = {"list": xs[:200], "nested": {"t": True, "n": None, "s": "äöü\u2028\U0001f600"}, "int": n % 10 ** 40}
text = json.dumps(doc, sort_keys=True)
show("json", text)
show("json back", json.loads(text) == doc)
data = bytes(rng.getrandbits(8) for _ in range(300000)) + b"abc" * 50000
for name in sorted(hashlib.algorithms_guaranteed):
    h = hashlib.new(name, data)
    show(name, h.hexdigest(32) if name.startswith("shake") else h.hexdigest())
show("pbkdf2", hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 2000).hex())
show("crc32", [zlib.crc32(data), zlib.adler32(data)])
for level in (1, 6, 9):
    z = zlib.compress(data, level)
    show(f"zlib {level}", [len(z), hashlib.sha256(z).hexdigest(), zlib.decompress(z) == data])

# sqlite3
db = sqlite3.connect("python.db")
db.execute("create table t (id integer primary key, name text, value real, blob blob)")
db.executemany("insert into t (name, value, blob) values (?, ?, ?)",
               [(f"name {i % 100}", x, struct.pack("<d", x)) for i, x in enumerate(xs)])
db.execute("create index by_name on t (name, value)")
db.commit()
show("sql", db.execute("select name, count(*), sum(value), min(value), max(value) from t group by name order by 3").fetchall())
show("sql text", db.execute("select group_concat(upper(substr(name, 3)), '-') from t where value > 900").fetchone())
show("sql check", db.execute("pragma integrity_check").fetchone())

# sorting, dictionaries, strings
show("sort", sorted(xs, key=lambda x: (int(x) % 17, -x)))
show("dict", sorted({str(x): i for i, x in enumerate(xs)}.items())[:50])
show("text", "".join(chr(0x4E00 + (int(abs(x)) % 500)) for x in xs).encode().hex())
