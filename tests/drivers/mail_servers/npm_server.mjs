// npm smtp-server as a mailbox provider: takes one user's password, or the OAuth2 token that stands in a file, and tells
// what came in. Repeats every further line it is given, behind all that it told before.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const given = JSON.parse((await lines.next()).value);
const { SMTPServer } = createRequire(given.modules + "/")("smtp-server");
const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");

function lets_in(auth) {
  if (auth.username !== given.user) return false;
  if (auth.method === "XOAUTH2") return auth.accessToken === readFileSync(given.token, "utf-8");
  return given.password !== undefined && auth.password === given.password;
}

for (const { port, secure } of given.listeners) {
  const server = new SMTPServer({
    secure,
    key: readFileSync(given.key),
    cert: readFileSync(given.chain),
    authMethods: given.methods,
    disableReverseLookup: true, // nobody's name is asked for
    onAuth(auth, session, done) {
      tell({ login: auth.accessToken ?? auth.method });
      if (lets_in(auth)) return done(null, { user: auth.username });
      if (auth.method === "XOAUTH2") return done(null, { data: { status: "401", schemes: "bearer", scope: "mail" } });
      return done(null, {});
    },
    onData(stream, session, done) {
      const chunks = [];
      stream.on("data", (chunk) => chunks.push(chunk));
      stream.on("end", () => {
        const recipients = session.envelope.rcptTo.map((address) => address.address);
        tell({ mail: Buffer.concat(chunks).toString("base64"), user: session.user, recipients });
        done(null, "queued");
      });
    },
  });
  server.on("error", () => {}); // a client that turns away from our certificate must not end the process
  server.listen(port, "127.0.0.1", () => tell({ listening: port }));
}
for await (const line of lines) tell({ asked: line });
