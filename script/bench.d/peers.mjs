// Does JOBS no-op jobs that wait in a queue, by one of the peers, and prints how many it did a second. `script/bench jobs` runs it.
//
//   node peers.mjs graphile-worker|pg-boss JOBS AT_ONCE fetch-one|fetch-many
//
// `fetch-one` is how each of them works unless set otherwise: a job is fetched, done and completed by itself, AT_ONCE of them side by side.
// `fetch-many` is the best that each offers: jobs fetched into a local queue and completed in batches (graphile-worker), or fetched and
// completed a hundred at a time (pg-boss). Neither logs or waits for a polling interval, and pg-boss runs without its background tasks.
// The jobs are there, and the tables analysed, before the clock starts; it stops when the last job is completed.

import { Logger, makeWorkerUtils, runOnce } from "graphile-worker";
import pg from "pg";
import PgBoss from "pg-boss";

const [peer, jobs, atOnce, fetching] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4]), process.argv[5]];
const name = "nothing";
// By the socket of PGHOST, as the service does.
const connection = { host: process.env.PGHOST, user: process.env.PGUSER, password: process.env.PGPASSWORD, database: process.env.PGDATABASE };
const pool = new pg.Pool({ ...connection, max: Math.max(10, atOnce + 2) });
pool.on("error", (error) => { throw error; });
pool.on("connect", (client) => client.on("error", (error) => { throw error; }));
const now = () => performance.now() / 1000;

async function settle(table) {
    await pool.query(`VACUUM ANALYZE ${table}`);
    await pool.query("CHECKPOINT");
}

async function graphileWorker() {
    const logger = new Logger(() => () => {});
    const utils = await makeWorkerUtils({ pgPool: pool, logger });
    await utils.migrate();
    await pool.query("SELECT graphile_worker.add_job($1) FROM generate_series(1, $2)", [name, jobs]);
    await settle("graphile_worker._private_jobs");
    const many = { concurrentJobs: atOnce, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0, maxPoolSize: atOnce + 2 };
    const worker = fetching === "fetch-many" ? many : { concurrentJobs: atOnce, maxPoolSize: atOnce + 2 };
    let done = 0;
    const started = now();
    await runOnce({ preset: { worker: { ...worker, logger } }, pgPool: pool, taskList: { [name]: async () => void done++ } });
    // It does not wait for the last completion itself.
    const remaining = async () => (await pool.query("SELECT count(*)::int AS count FROM graphile_worker._private_jobs")).rows[0].count;
    let left = await remaining();
    while (left > 0 && now() - started < 600) left = await remaining();
    const seconds = now() - started;
    await utils.release();
    return { seconds, done, left };
}

async function pgBoss() {
    const boss = new PgBoss({ ...connection, max: Math.max(10, atOnce), supervise: false, schedule: false });
    boss.on("error", (error) => { throw error; });
    await boss.start();
    await boss.createQueue(name);
    await boss.insert(Array.from({ length: jobs }, () => ({ name })));
    await settle("pgboss.job");
    let done = 0;
    const worker = async () => {
        for (;;) {
            const fetched = fetching === "fetch-many" ? await boss.fetch(name, { batchSize: 100 }) : await boss.fetch(name);
            if (fetched.length === 0) return;
            await boss.complete(name, fetched.map((job) => job.id));
            done += fetched.length;
        }
    };
    const started = now();
    await Promise.all(Array.from({ length: atOnce }, worker));
    const seconds = now() - started;
    const left = await pool.query("SELECT count(*)::int AS count FROM pgboss.job WHERE state <> 'completed'");
    await boss.stop({ graceful: false });
    return { seconds, done, left: left.rows[0].count };
}

const { seconds, done, left } = await { "graphile-worker": graphileWorker, "pg-boss": pgBoss }[peer]();
await pool.end();
if (done !== jobs || left !== 0) throw new Error(`${peer} did ${done} of ${jobs} jobs and left ${left}`);
console.log((jobs / seconds).toFixed(0));
