// BullMQ and Nodemailer as their documentation sets them up: one queue, pooled SMTP connections. The HTML has short lines,
// so that Nodemailer need not encode it.
// node bullmq.mjs publish | work      REDIS_PORT, SMTP_PORT, CONCURRENCY, FOLDER (of node_modules)
// The publisher obeys lines on stdin as mails.publish says; hrtime is the same clock as Python's time.monotonic.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
const require = createRequire(process.env.FOLDER + "/");
const { Queue, Worker } = require("bullmq");
const nodemailer = require("nodemailer");

const connection = { host: "127.0.0.1", port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null };
const html = "<p>Hello {name},</p>" + "<p>Somebody asked for a new password. </p>\n".repeat(280) + '<a href="{url}">{url}</a>';
const now = () => Number(process.hrtime.bigint()) / 1e9;
const opts = { removeOnComplete: true, attempts: 3 };
const reset = (i) => ({
  id: `<${i}.peer@example.org>`, to: `user${i}@example.com`, name: "Ana Lima", url: `https://app.example.org/reset/${i}`,
});

if (process.argv[2] === "publish") {
  const queue = new Queue("mail", { connection });
  let next = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const [verb, count] = line.split(" ");
    const end = next + Number(count);
    const timed = [];
    while (next < end && verb === "pace") {
      const data = reset(next++);
      const began = now();
      await queue.add("reset", data, opts);
      const took = now() - began;
      timed.push([data.id, began, took]);
      await sleep(Math.max(0, 10 - took * 1000));
    }
    while (next < end) {
      const jobs = [];
      for (; next < end && jobs.length < 100; next++) jobs.push({ name: "reset", data: reset(next), opts });
      await queue.addBulk(jobs);
    }
    console.log(JSON.stringify(timed));
  }
  await queue.close();
} else {
  const concurrency = Number(process.env.CONCURRENCY);
  const mailer = nodemailer.createTransport({
    host: "127.0.0.1", port: Number(process.env.SMTP_PORT), secure: false, ignoreTLS: true,
    pool: true, maxConnections: concurrency, maxMessages: 100,
  });
  new Worker("mail", async (job) => {
    const fill = (text) => text.replaceAll("{name}", job.data.name).replaceAll("{url}", job.data.url);
    await mailer.sendMail({
      from: '"Main" <main@example.org>', to: job.data.to, subject: "Reset your password",
      text: fill("Hello {name}, {url}"), html: fill(html), messageId: job.data.id,
    });
  }, { connection, concurrency });
  console.log("ready");
}
