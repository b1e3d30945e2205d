# SPDX-License-Identifier: Apache-2.0
# redis-server over loopback and over a Unix socket, with a reload from disk.
set -e
start() {
	redis-server --port 6399 --bind 127.0.0.1 --unixsocket "$PWD/redis.sock" --dir "$PWD" --save '' --daemonize yes --logfile "$PWD/redis.log" >/dev/null
	for i in $(seq 300); do
		redis-cli -p 6399 ping >/dev/null 2>&1 && return
		sleep 0.1
	done
	cat redis.log
	exit 1
}
start
redis-cli -p 6399 ping
awk 'BEGIN { for (i = 0; i < 5000; i++) printf "SET key:%d value-%d\r\nINCRBY sum %d\r\nRPUSH list %d\r\nZADD z %d.5 m%d\r\nHSET h f%d %d\r\n", i, i * 7, i, i, i % 97, i, i % 50, i }' |
	redis-cli -p 6399 --pipe | tail -n 1
redis-cli -p 6399 get key:4999
redis-cli -p 6399 get sum
redis-cli -p 6399 llen list
redis-cli -p 6399 zrangebyscore z 96 97 | sort | tail -n 3
redis-cli -p 6399 hgetall h | sort | sha256sum
redis-cli -p 6399 dbsize
redis-cli -s redis.sock eval 'local s = 0 for i = 1, 100000 do s = s + i % 7 * 1.5 end return tostring(s)' 0
redis-cli -s redis.sock debug sleep 0 >/dev/null 2>&1 || true
redis-cli -p 6399 save
redis-cli -p 6399 shutdown nosave || true
for i in $(seq 100); do [ -e redis.sock ] || break; sleep 0.1; done
start
redis-cli -p 6399 dbsize
redis-cli -p 6399 get key:123
redis-cli -p 6399 sort list limit 0 3 desc
redis-cli -p 6399 shutdown nosave || true
