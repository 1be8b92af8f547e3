// Where the peer keeps what it knows: its memory, SQLite or PostgreSQL; each an adapter as oidc-provider's page has it.
import pg from "pg";
import { DatabaseSync } from "node:sqlite";

const grantable = new Set(["AccessToken", "AuthorizationCode", "RefreshToken"]);
const now = () => Math.floor(Date.now() / 1000);

// The adapter that the package brings forgets all but some 1,000 entries, which a run outgrows.
function memory() {
  const stored = new Map();
  const ofGrant = new Map();
  const sessionOfUid = new Map();
  return class {
    constructor(model) {
      this.model = model;
    }

    async upsert(id, payload) {
      const key = `${this.model}:${id}`;
      stored.set(key, payload);
      if (this.model === "Session") sessionOfUid.set(payload.uid, id);
      if (grantable.has(this.model) && payload.grantId) {
        if (!ofGrant.has(payload.grantId)) ofGrant.set(payload.grantId, new Set());
        ofGrant.get(payload.grantId).add(key);
      }
    }

    async find(id) {
      return stored.get(`${this.model}:${id}`);
    }

    async findByUid(uid) {
      return this.find(sessionOfUid.get(uid));
    }

    async consume(id) {
      stored.get(`${this.model}:${id}`).consumed = now();
    }

    async destroy(id) {
      stored.delete(`${this.model}:${id}`);
    }

    async revokeByGrantId(grantId) {
      for (const key of ofGrant.get(grantId) ?? []) stored.delete(key);
      ofGrant.delete(grantId);
    }
  };
}

// One table: `run` and `row` are the database's, $1, $2, … its parameters.
function table({ run, row, consumed }) {
  const upsert = `INSERT INTO kept VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE
    SET payload = excluded.payload, grant_id = excluded.grant_id, uid = excluded.uid, expires_at = excluded.expires_at`;
  const found = (line) => line && (typeof line.payload === "string" ? JSON.parse(line.payload) : line.payload);
  return class {
    constructor(model) {
      this.model = model;
    }

    async upsert(id, payload, expiresIn) {
      const grant = grantable.has(this.model) ? (payload.grantId ?? null) : null;
      const end = expiresIn ? now() + expiresIn : null;
      await run("upsert", upsert, [`${this.model}:${id}`, JSON.stringify(payload), grant, payload.uid ?? null, end]);
    }

    async find(id) {
      return found(await row("find", "SELECT payload FROM kept WHERE id = $1", [`${this.model}:${id}`]));
    }

    async findByUid(uid) {
      return found(await row("uid", "SELECT payload FROM kept WHERE uid = $1", [uid]));
    }

    async consume(id) {
      await run("consume", `UPDATE kept SET payload = ${consumed} WHERE id = $2`, [now(), `${this.model}:${id}`]);
    }

    async destroy(id) {
      await run("destroy", "DELETE FROM kept WHERE id = $1", [`${this.model}:${id}`]);
    }

    async revokeByGrantId(grantId) {
      await run("revoke", "DELETE FROM kept WHERE grant_id = $1", [grantId]);
    }
  };
}

const schema = (json) => [
  `CREATE TABLE IF NOT EXISTS kept (id text PRIMARY KEY, payload ${json} NOT NULL, grant_id text, uid text, expires_at bigint)`,
  "CREATE INDEX IF NOT EXISTS kept_grant ON kept (grant_id) WHERE grant_id IS NOT NULL",
  "CREATE INDEX IF NOT EXISTS kept_uid ON kept (uid) WHERE uid IS NOT NULL",
];

// A commit is on disk when it returns.
function sqlite(path) {
  const database = new DatabaseSync(path);
  database.exec("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  for (const line of schema("text")) database.exec(line);
  const prepared = new Map();
  const statement = (name, text) => {
    if (!prepared.has(name)) prepared.set(name, database.prepare(text.replace(/\$(\d)/g, "?$1")));
    return prepared.get(name);
  };
  return table({
    run: (name, text, values) => statement(name, text).run(...values),
    row: (name, text, values) => statement(name, text).get(...values),
    consumed: "json_set(payload, '$.consumed', $1)",
  });
}

async function postgres(url) {
  const pool = new pg.Pool({ connectionString: url, max: 10 });
  return table({
    run: (name, text, values) => pool.query({ name, text, values }),
    row: async (name, text, values) => (await pool.query({ name, text, values })).rows[0],
    consumed: "jsonb_set(payload, '{consumed}', to_jsonb($1::bigint))",
  });
}

// Its tables are made once, before there are workers.
export async function prepare(kind, where) {
  if (kind === "sqlite") sqlite(where);
  if (kind !== "postgres") return;
  const client = new pg.Client({ connectionString: where });
  await client.connect();
  for (const line of schema("jsonb")) await client.query(line);
  await client.end();
}

export async function store(kind, where) {
  if (kind === "sqlite") return sqlite(where);
  return kind === "postgres" ? postgres(where) : memory();
}
