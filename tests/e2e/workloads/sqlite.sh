# SPDX-License-Identifier: Apache-2.0
set -e
sqlite3 t.db <<'SQL'
pragma journal_mode = wal;
create table t (i integer primary key, v text, r real);
with recursive n (x) as (select 1 union all select x + 1 from n where x < 50000)
	insert into t select x, printf('%08x', x * 2654435761 % 4294967296), x / 7.0 from n;
create index tv on t (v);
select count(*), sum(r), avg(r), max(v), min(v) from t;
select substr(v, 1, 1) as c, count(*), round(sum(r), 6) from t group by c order by c;
delete from t where i % 3 = 0;
vacuum;
select count(*), total(length(v)) from t;
pragma integrity_check;
select sqrt(2), sin(1), pow(2, 0.5), exp(1), ln(10);
SQL
sqlite3 t.db .dump | sha256sum
