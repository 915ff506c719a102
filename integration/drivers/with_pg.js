// node-postgres through Keyway: with_pg.js SHARDED_URL PLAIN_URL. Ends with the number of checks.
'use strict';

const assert = require('node:assert/strict');
const { Client, Pool } = require('pg');

const [sharded, plain] = process.argv.slice(2);
const USER_ID = 930001;
let checks = 0;

function check(what, got, want) {
  checks += 1;
  assert.deepEqual(got, want, what);
}

async function fails(what, code, promise) {
  const error = await promise.then(() => assert.fail(`${what}: no error`), (it) => it);
  check(what, error.code, code);
  return error;
}

async function connected(url, options) {
  const client = new Client({ connectionString: url, ...options });
  await client.connect();
  return client;
}

async function values(client) {
  const when = new Date('2026-01-02T03:04:05.678Z');
  const row = [7, '4611686018427387904', 'naïve ☃', '12.50', when, Buffer.from([0, 255, 39, 92]), null, [1, 2, 3], true];
  const text =
    'SELECT $1::int, $2::int8, $3::text, $4::numeric, $5::timestamptz, $6::bytea, $7::text, $8::int[], $9::bool';
  const result = await client.query({ text, values: row, rowMode: 'array' });
  check('values', result.rows, [row]);
  const binary = await client.query({ text: 'SELECT $1::int4', values: [7], rowMode: 'array', binary: true });
  check('a binary result', binary.rows, [[7]]);
}

async function transactions(client) {
  await client.query('DROP TABLE IF EXISTS drv_pg; CREATE TABLE drv_pg (id int PRIMARY KEY, t text)');
  await client.query('BEGIN');
  await client.query('INSERT INTO drv_pg VALUES ($1, $2)', [1, 'kept']);
  await client.query('SAVEPOINT a');
  await fails('unique violation', '23505', client.query('INSERT INTO drv_pg VALUES (1)'));
  await fails('aborted', '25P02', client.query('SELECT 1'));
  await client.query('ROLLBACK TO a');
  await client.query('COMMIT');
  await client.query('BEGIN');
  await client.query('DELETE FROM drv_pg');
  await client.query('ROLLBACK');
  check('rows', (await client.query('SELECT * FROM drv_pg')).rows, [{ id: 1, t: 'kept' }]);
  const several = await client.query("SELECT 1 AS a; SELECT 2 AS b; INSERT INTO drv_pg VALUES (2, 'x')");
  check('several statements', several.map((it) => it.command), ['SELECT', 'SELECT', 'INSERT']);
}

async function errors(client) {
  const error = await fails('syntax error', '42601', client.query('SELEC 1'));
  check('its position', error.position, '1');
  await fails('division by zero', '22012', client.query('SELECT 1 / $1::int', [0]));
  // Three at once: the driver queues them on one connection, the second fails.
  const results = await Promise.allSettled([
    client.query('SELECT 1 AS n'), client.query('SELECT 1 / 0'), client.query('SELECT $1::int AS n', [3]),
  ]);
  check('a queue', results.map((it) => it.status), ['fulfilled', 'rejected', 'fulfilled']);
}

async function named(url) {
  const [one, other] = [await connected(url), await connected(url)];
  for (let turn = 0; turn < 10; turn += 1) {
    const left = await one.query({ name: 'same', text: 'SELECT $1::int + 1 AS n', values: [turn] });
    const right = await other.query({ name: 'same', text: 'SELECT $1::int * 2 AS n', values: [turn] });
    check('a named statement', [left.rows[0].n, right.rows[0].n], [turn + 1, turn * 2]);
  }
  await one.end();
  await other.end();
}

async function settings(url) {
  const one = await connected(url, { application_name: 'drv pg', statement_timeout: 12345 });
  const other = await connected(url);
  await one.query("SET TIME ZONE 'Asia/Tokyo'");
  for (let turn = 0; turn < 5; turn += 1) {
    check('its own', (await one.query('SHOW timezone')).rows[0].TimeZone, 'Asia/Tokyo');
    check('startup', (await one.query('SHOW application_name')).rows[0].application_name, 'drv pg');
    check('startup', (await one.query('SHOW statement_timeout')).rows[0].statement_timeout, '12345ms');
    check('not the other', (await other.query('SHOW timezone')).rows[0].TimeZone === 'Asia/Tokyo', false);
  }
  await one.end();
  await other.end();
}

async function pools(url) {
  const pool = new Pool({ connectionString: url, max: 30 });
  const rows = await Promise.all([...Array(300).keys()].map((n) => pool.query('SELECT $1::int AS n', [n])));
  check('a pool', rows.map((it) => it.rows[0].n), [...Array(300).keys()]);
  await pool.end();
}

async function shards(client) {
  await client.query('DELETE FROM users WHERE user_id = $1', [USER_ID]);
  const insert = 'INSERT INTO users (user_id, name, email, country) VALUES ($1, $2, $3, $4)';
  await client.query(insert, [USER_ID, 'pg', 'e', 'NL']);
  await fails('a duplicate on its shard', '23505', client.query(insert, [USER_ID, 'pg', 'e', 'NL']));
  for (let key = 1; key < 100; key += 1) {
    const { rows } = await client.query('SELECT user_id FROM users WHERE user_id = $1', [key]);
    check('each key', rows, [{ user_id: String(key) }]);
  }
  const error = await fails('a refusal', '0A000', client.query('SELECT * FROM users ORDER BY name'));
  check('it has a hint', Boolean(error.hint), true);
  check('no key', (await client.query('SELECT user_id FROM users WHERE user_id <= 100')).rowCount, 100);
  await client.query('DELETE FROM users WHERE user_id = $1', [USER_ID]);
}

async function main() {
  const client = await connected(plain);
  await values(client);
  await transactions(client);
  await errors(client);
  await client.query('DROP TABLE drv_pg');
  await client.end();
  const other = await connected(sharded);
  await values(other);
  await shards(other);
  await other.end();
  for (const url of [plain, sharded]) {
    await named(url);
    await settings(url);
    await pools(url);
  }
  console.log(`${checks} checks`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
