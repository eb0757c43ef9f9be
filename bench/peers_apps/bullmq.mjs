// BullMQ and Nodemailer as their documentation sets them up: one queue, pooled SMTP connections. The HTML has short lines,
// so that Nodemailer need not encode it.
// node bullmq.mjs publish (a count a line on stdin) | work      REDIS_PORT, SMTP_PORT, CONCURRENCY, FOLDER (of node_modules)
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
const require = createRequire(process.env.FOLDER + "/");
const { Queue, Worker } = require("bullmq");
const nodemailer = require("nodemailer");

const connection = { host: "127.0.0.1", port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null };
const html = "<p>Hello {name},</p>" + "<p>Somebody asked for a new password. </p>\n".repeat(280) + '<a href="{url}">{url}</a>';

if (process.argv[2] === "publish") {
  const queue = new Queue("mail", { connection });
  for await (const line of createInterface({ input: process.stdin })) {
    const total = Number(line);
    for (let start = 0; start < total; start += 100) {
      const jobs = [];
      for (let i = start; i < Math.min(total, start + 100); i++) {
        const data = { to: `user${i}@example.com`, name: "Ana Lima", url: `https://app.example.org/reset/${i}` };
        jobs.push({ name: "reset", data, opts: { removeOnComplete: true, attempts: 3 } });
      }
      await queue.addBulk(jobs);
    }
    console.log("done");
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
      text: fill("Hello {name}, {url}"), html: fill(html), messageId: `<${job.id}.${process.pid}@example.org>`,
    });
  }, { connection, concurrency });
  console.log("ready");
}
