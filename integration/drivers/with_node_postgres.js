// node-postgres with nothing but the connection string: with_node_postgres.js URL
'use strict';

const assert = require('node:assert/strict');
const { Client, Pool, types } = require('pg');

// More than a pool has slots.
const CLIENTS = 40;
const STATEMENTS = 120;
// Users of the shop that no other test touches.
const FIRST_USER = 3_000_000;

let checks = 0;

function equal(what, got, want) {
  checks += 1;
  assert.deepEqual(got, want, what);
}

function that(what, holds) {
  checks += 1;
  assert.ok(holds, what);
}

async function fails(what, code, promise) {
  checks += 1;
  try {
    await promise;
  } catch (error) {
    assert.equal(error.code, code, `${what}: ${error.stack}`);
    return error;
  }
  return assert.fail(`${what}: no error`);
}

// The database behind the URL, and what is the same in both.
class Target {
  static async of(url) {
    const it = new Target();
    it.url = url;
    it.nextUser = FIRST_USER;
    await it.with(async (client) => {
      it.database = (await client.query('SELECT current_database() AS name')).rows[0].name;
      it.users = it.database === 'shop' ? 'users' : 'node_users';
      if (it.database !== 'shop') {
        await client.query(
          `CREATE TABLE ${it.users} (user_id bigint PRIMARY KEY, name text NOT NULL, ` +
            'email text NOT NULL, country char(2) NOT NULL)'
        );
      }
    });
    it.insert = `INSERT INTO ${it.users} (user_id, name, email, country) VALUES ($1, $2, '', 'NL')`;
    it.change = `UPDATE ${it.users} SET name = $2 WHERE user_id = $1`;
    return it;
  }

  async with(use, options = {}) {
    const client = new Client({ connectionString: this.url, ...options });
    await client.connect();
    try {
      return await use(client);
    } finally {
      await client.end();
    }
  }

  user() {
    this.nextUser += 1;
    return this.nextUser;
  }

  async name(client, user) {
    const { rows } = await client.query(`SELECT name FROM ${this.users} WHERE user_id = $1`, [user]);
    return rows[0]?.name;
  }

  // Found as a client can: by what Keyway refuses.
  async usersOfTwoShards(client) {
    const first = this.user();
    for (;;) {
      const second = this.user();
      await client.query('BEGIN');
      try {
        const lock = 'SELECT FROM users WHERE user_id = $1 FOR UPDATE';
        await client.query(lock, [first]);
        await client.query(lock, [second]);
      } catch (error) {
        assert.equal(error.code, '0A000');
        return [first, second];
      } finally {
        await client.query('ROLLBACK');
      }
    }
  }
}

const one = async (client, text, values) =>
  (await client.query({ text, values, rowMode: 'array' })).rows[0][0];

async function connectsAndTellsWhatAServerTells(target) {
  await target.with(async (client) => {
    equal('answer', (await client.query('SELECT 1 AS a')).rows, [{ a: 1 }]);
    that('process id', client.processID > 0);
    const result = await client.query("SELECT 1 AS a, 'b'::text AS b, NULL AS c");
    equal('names', result.fields.map((it) => it.name), ['a', 'b', 'c']);
    equal('types', result.fields.map((it) => it.dataTypeID), [23, 25, 25]);
    equal('command', [result.command, result.rowCount], ['SELECT', 1]);
    const several = await client.query("SELECT 1 AS a; SELECT 'two' AS b");
    equal('two results', several.map((it) => it.rows), [[{ a: 1 }], [{ b: 'two' }]]);
    equal('an empty statement', (await client.query('')).rows, []);
    equal('an empty bound one', (await client.query('', [])).rows, []);
  });
}

async function startupOptionsStayWithTheirClient(target) {
  const options = { application_name: "it's node", options: '-c work_mem=3MB', statement_timeout: 11_000 };
  await target.with(async (client) => {
    await target.with(async (other) => {
      for (let turn = 0; turn < 3; turn += 1) {
        equal('application_name', await one(client, 'SHOW application_name'), "it's node");
        equal('work_mem', await one(client, 'SHOW work_mem'), '3MB');
        equal('statement_timeout', await one(client, 'SHOW statement_timeout'), '11s');
        that("another's name", (await one(other, 'SHOW application_name')) !== "it's node");
        that("another's work_mem", (await one(other, 'SHOW work_mem')) !== '3MB');
      }
    });
  }, options);
  const wrong = target.with(() => {}, { options: '-c work_mem=much' });
  await fails('a wrong option', '22023', wrong);
}

async function settingsStayWithTheirClient(target) {
  await target.with(async (first) => {
    await target.with(async (second) => {
      await first.query("SET lock_timeout = '11s'");
      await second.query("SET lock_timeout TO '12s'");
      for (let turn = 0; turn < 5; turn += 1) {
        equal('SHOW', await one(first, 'SHOW lock_timeout'), '11s');
        equal('SHOW', await one(second, 'SHOW lock_timeout'), '12s');
      }
      await first.query('BEGIN');
      await first.query("SET LOCAL lock_timeout = '13s'");
      equal('SET LOCAL', await one(first, 'SHOW lock_timeout'), '13s');
      await first.query('COMMIT');
      equal('after it', await one(first, 'SHOW lock_timeout'), '11s');
      await first.query('BEGIN');
      await first.query("SET lock_timeout = '14s'");
      await first.query('ROLLBACK');
      equal('rolled back', await one(first, 'SHOW lock_timeout'), '11s');
    });
  });
}

async function valuesSurvive(target) {
  const text = 'it\'s a \\ "key" \n\t of naïve 鍵 🔑';
  const values = [
    ['int8', '-9223372036854775808'],
    ['int4', 2147483647],
    ['bool', true],
    ['float8', 0.1],
    ['text', text],
    ['text', ''],
    ['numeric', '12345678901234567890.000123'],
    ['timestamptz', new Date('2026-02-28T23:59:59.999Z')],
    ['uuid', '6ba7b810-9dad-11d1-80b4-00c04fd430c8'],
    ['bytea', Buffer.from(Array.from({ length: 256 }, (_, it) => it))],
    ['jsonb', { a: [1, null], b: text }],
    ['int4[]', [1, null, -5]],
    ['text[]', ['a', null, 'NULL', 'b,"c\\', '']],
    ['uuid[]', ['6ba7b810-9dad-11d1-80b4-00c04fd430c8']],
    ['int4[]', []],
  ];
  await target.with(async (client) => {
    for (const [type, value] of values) {
      equal(type, await one(client, `SELECT $1::${type}`, [value]), value);
      equal(`${type}, NULL`, await one(client, `SELECT $1::${type}`, [null]), null);
    }
    // Binary results, where the driver can read them.
    for (const [type, value] of [['int8', '4294967299'], ['int4', 70_000], ['text', text], ['bool', false]]) {
      const got = await client.query({ text: `SELECT $1::${type} AS it`, values: [value], binary: true });
      equal(`binary ${type}`, String(got.rows[0].it), String(value));
    }
    const buffer = Buffer.alloc(1_500_000, 7);
    that('1.5 MB', buffer.equals(await one(client, 'SELECT $1::bytea', [buffer])));
  });
}

async function statementsFollowTheirClient(target) {
  const clients = [];
  for (let index = 0; index < 4; index += 1) {
    clients.push(new Client({ connectionString: target.url }));
    await clients[index].connect();
  }
  // Named statements, more of them than a pool has slots, on servers that change under them. The names
  // are the same in each client, the texts are not.
  for (let turn = 0; turn < 3; turn += 1) {
    for (let index = 0; index < STATEMENTS; index += 1) {
      const client = clients[(index + turn) % 4];
      const shift = (index + turn) % 4;
      const query = { name: `s${index}`, text: `SELECT $1::int4 + ${index} + ${shift} AS it`, values: [turn] };
      const inTransaction = turn === 1 && index % 10 === 0;
      if (inTransaction) await client.query('BEGIN');
      equal(query.text, (await client.query(query)).rows, [{ it: turn + index + shift }]);
      if (inTransaction) await client.query('COMMIT');
    }
  }
  // The driver sends Parse, Bind and Execute at once: what fails in Execute has been prepared all the same.
  const divide = (it) => clients[0].query({ name: 'divide', text: 'SELECT 100 / $1::int4 AS it', values: [it] });
  for (let turn = 0; turn < 2; turn += 1) {
    await fails('prepared division', '22012', divide(0));
    equal('prepared division', (await divide(4)).rows, [{ it: 25 }]);
  }
  // What fails in Parse has not.
  const wrong = { name: 'wrong', text: 'SELECT nothing_of_the_kind' };
  for (let turn = 0; turn < 2; turn += 1) await fails('no such column', '42703', clients[0].query(wrong));
  await Promise.all(clients.map((it) => it.end()));
}

async function transactionsEndAsTold(target) {
  await target.with(async (client) => {
    const user = target.user();
    await client.query('BEGIN');
    await client.query(target.insert, [user, 'kept']);
    equal('COMMIT', (await client.query('COMMIT')).command, 'COMMIT');
    equal('after COMMIT', await target.name(client, user), 'kept');
    await client.query('BEGIN');
    await client.query(target.change, [user, 'lost']);
    equal('seen inside', await target.name(client, user), 'lost');
    equal('ROLLBACK', (await client.query('ROLLBACK')).command, 'ROLLBACK');
    equal('after ROLLBACK', await target.name(client, user), 'kept');
    await client.query('BEGIN');
    await client.query(target.change, [user, 'outer']);
    await client.query('SAVEPOINT sp');
    await client.query(target.change, [user, 'inner']);
    await fails('error', '22012', client.query('SELECT 1/$1::int4', [0]));
    await fails('aborted', '25P02', target.name(client, user));
    await client.query('ROLLBACK TO sp');
    equal('before ROLLBACK TO', await target.name(client, user), 'outer');
    await client.query('RELEASE sp');
    await client.query('COMMIT');
    equal('savepoint', await target.name(client, user), 'outer');
    await client.query('BEGIN');
    await fails('error', '22012', client.query('SELECT 1/0'));
    equal('COMMIT of what is aborted', (await client.query('COMMIT')).command, 'ROLLBACK');
    await client.query('BEGIN READ ONLY');
    await fails('a write in it', '25006', client.query(target.change, [user, 'never']));
    await client.query('ROLLBACK');
  });
}

async function errorsAreTheServersOwn(target) {
  await target.with(async (client) => {
    const user = target.user();
    await client.query(target.insert, [user, 'first']);
    const double = await fails('a double', '23505', client.query(target.insert, [user, 'second']));
    equal('its constraint', double.constraint, `${target.users}_pkey`);
    equal('its detail', double.detail, `Key (user_id)=(${user}) already exists.`);
    for (const values of [undefined, []]) {
      const syntax = await fails('syntax', '42601', client.query('SELECT 1 FORM x y', values));
      equal('its place', [syntax.position, syntax.severity], ['15', 'ERROR']);
      const table = await fails('a table', '42P01', client.query('SELECT 1 FROM pg_none', values));
      equal('its place', table.position, '15');
    }
    for (let turn = 0; turn < 3; turn += 1) {
      const divide = await fails('division', '22012', client.query('SELECT 1 / $1::int4', [0]));
      equal('its words', divide.message, 'division by zero');
      equal('usable', await one(client, 'SELECT $1::int4', [turn]), turn);
    }
    await fails('junk', '22P02', client.query('SELECT $1::int4', ['seven']));
  });
}

async function queuedQueriesAnswerInOrder(target) {
  await target.with(async (client) => {
    const queued = [];
    for (let it = 0; it < 100; it += 1) {
      queued.push(it % 3 ? one(client, 'SELECT $1::int4', [it]) : one(client, `SELECT ${it}`));
    }
    equal('in order', await Promise.all(queued), queued.map((_, it) => it));
    const user = target.user();
    const settled = await Promise.allSettled([
      client.query('BEGIN'),
      client.query(target.insert, [user, 'queued']),
      client.query('SELECT 1/0'),
      client.query(target.change, [user, 'never']),
      client.query('ROLLBACK'),
      target.name(client, user),
    ]);
    const codes = settled.map((it) => it.reason?.code);
    equal('one by one', codes, [undefined, undefined, '22012', '25P02', undefined, undefined]);
    equal('nothing of it', settled[5].value, undefined);
  });
}

async function cancelEndsAStatementAndNoMore(target) {
  await target.with(async (client) => {
    await target.with(async (other) => {
      for (let turn = 0; turn < 2; turn += 1) {
        const sleep = client.query('SELECT pg_sleep(60)');
        const query = client._activeQuery ?? client.activeQuery;
        setTimeout(() => new Client({ connectionString: target.url }).cancel(client, query), 200);
        await fails('cancel', '57014', sleep);
        equal('usable', await one(client, 'SELECT 1'), 1);
        equal('another client', await one(other, 'SELECT 1'), 1);
      }
    });
    await client.query("SET statement_timeout = '100ms'");
    await fails('timeout', '57014', client.query('SELECT pg_sleep(60)'));
  });
}

async function aPoolSharesConnections(target) {
  const pool = new Pool({ connectionString: target.url, max: 10 });
  const work = async (index) => {
    const client = await pool.connect();
    try {
      await client.query('BEGIN');
      const sum = await one(client, 'SELECT $1::int4 + $2::int4', [index, 1]);
      await client.query('COMMIT');
      return sum;
    } finally {
      client.release();
    }
  };
  const answers = await Promise.all(Array.from({ length: 100 }, (_, it) => work(it)));
  equal('answers', answers, answers.map((_, it) => it + 1));
  await pool.end();
}

async function moreClientsThanServers(target) {
  const work = (index) =>
    target.with(async (client) => {
      const user = FIRST_USER + 500_000 + index;
      await client.query(target.insert, [user, `of ${index}`]);
      for (let turn = 0; turn < 5; turn += 1) {
        await client.query('BEGIN');
        const name = await target.name(client, user);
        await client.query('SELECT pg_sleep(0.001)');
        await client.query(target.change, [user, `${name} ${turn}`]);
        await client.query('COMMIT');
      }
      return target.name(client, user);
    });
  const names = await Promise.all(Array.from({ length: CLIENTS }, (_, it) => work(it)));
  equal('names', names, names.map((_, it) => `of ${it} 0 1 2 3 4`));
}

// Only where there is one shard.

async function sessionStateStaysWithItsClient(target) {
  await target.with(async (first) => {
    await target.with(async (second) => {
      await first.query('CREATE TEMPORARY TABLE node_mine (a int)');
      await first.query('INSERT INTO node_mine SELECT generate_series(1, 3)');
      await fails("another's table", '42P01', second.query('SELECT a FROM node_mine'));
      equal('its own', await one(first, 'SELECT sum(a)::int4 FROM node_mine'), 6);
      await first.query('BEGIN');
      await first.query('DECLARE parts CURSOR FOR SELECT a FROM node_mine ORDER BY a');
      equal('a cursor', (await first.query('FETCH 2 FROM parts')).rows, [{ a: 1 }, { a: 2 }]);
      equal('its rest', (await first.query('FETCH ALL FROM parts')).rows, [{ a: 3 }]);
      await first.query('COMMIT');
    });
  });
}

// Only where there are several.

async function keysChooseTheShard(target) {
  await target.with(async (client) => {
    const users = Array.from({ length: 60 }, (_, it) => it + 1);
    for (const user of users) {
      equal('a key', await target.name(client, user), `user ${user}`);
      equal('a named statement', (await client.query({
        name: 'by key', text: 'SELECT name FROM users WHERE user_id = $1', values: [user],
      })).rows, [{ name: `user ${user}` }]);
    }
    const any = await client.query('SELECT user_id FROM users WHERE user_id = ANY($1::int8[])', [users]);
    equal('= ANY', any.rows.map((it) => Number(it.user_id)).sort((a, b) => a - b), users);
    const dutch = await client.query("SELECT user_id FROM users WHERE country = 'NL' AND user_id <= 2000");
    equal('over all shards', dutch.rows.map((it) => Number(it.user_id)).sort((a, b) => a - b),
      Array.from({ length: 8 }, (_, it) => (it + 1) * 250));
    const changed = await client.query("UPDATE countries SET name = name WHERE code = 'KE'");
    equal('a reference table', [changed.command, changed.rowCount], ['UPDATE', 1]);
  });
}

async function whatNeedsSeveralShardsIsRefused(target) {
  await target.with(async (client) => {
    const [first, second] = await target.usersOfTwoShards(client);
    const few = await client.query(
      'SELECT user_id::int FROM users WHERE user_id <= $1 ORDER BY user_id DESC LIMIT $2', [100, 3]);
    equal('sorted', few.rows.map((it) => it.user_id), [100, 99, 98]);
    equal('counted', await one(client, 'SELECT count(*)::int FROM users WHERE user_id <= $1', [100]), 100);
    const refused = [
      ['SELECT row_number() OVER (ORDER BY user_id) FROM users'],
      ['SELECT user_id FROM users FOR UPDATE'],
      ["UPDATE users SET name = 'x'"],
      ['DELETE FROM users WHERE user_id = ANY($1::int8[])', [[first, second]]],
      ["INSERT INTO users (name, email, country) VALUES ('a', 'b', 'NL')"],
      ['CREATE TEMPORARY TABLE node_mine (a int)'],
    ];
    for (const [text, values] of refused) {
      const error = await fails(text, '0A000', client.query(text, values));
      that('its hint', error.hint);
      equal('goes on', await one(client, 'SELECT $1::text', [text]), text);
    }
    await client.query('BEGIN');
    equal('counted', await one(client, 'SELECT count(*)::int FROM users WHERE user_id <= $1', [100]), 100);
    equal('of two shards', [await target.name(client, 7), await target.name(client, 8)], ['user 7', 'user 8']);
    await client.query('COMMIT');
    await client.query('BEGIN');
    await client.query(target.insert, [first, 'lost']);
    await fails('two shards', '0A000', client.query(target.insert, [second, 'never']));
    await fails('aborted', '25P02', target.name(client, first));
    equal('COMMIT of what is aborted', (await client.query('COMMIT')).command, 'ROLLBACK');
    equal('nothing of it', await target.name(client, first), undefined);
  });
}

const EVERYWHERE = [
  connectsAndTellsWhatAServerTells,
  startupOptionsStayWithTheirClient,
  settingsStayWithTheirClient,
  valuesSurvive,
  statementsFollowTheirClient,
  transactionsEndAsTold,
  errorsAreTheServersOwn,
  queuedQueriesAnswerInOrder,
  cancelEndsAStatementAndNoMore,
  aPoolSharesConnections,
  moreClientsThanServers,
];
const UNSHARDED = [sessionStateStaysWithItsClient];
const SHARDED = [keysChooseTheShard, whatNeedsSeveralShardsIsRefused];

async function main(url) {
  // As text: a bigint has more digits than a number.
  equal('the driver reads int8 as text', types.getTypeParser(20)('9007199254740993'), '9007199254740993');
  const target = await Target.of(url);
  for (const step of [...EVERYWHERE, ...(target.database === 'shop' ? SHARDED : UNSHARDED)]) {
    console.log(step.name);
    await step(target);
  }
  console.log(`checks: ${checks}`);
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
