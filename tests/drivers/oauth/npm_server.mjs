// npm smtp-server as a mailbox provider: takes XOAUTH2 logins with the token that stands in a file, tells what came in.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const given = JSON.parse(readFileSync(0, "utf-8"));
const { SMTPServer } = createRequire(given.modules + "/")("smtp-server");
const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");

const server = new SMTPServer({
  secure: false,
  key: readFileSync(given.key),
  cert: readFileSync(given.chain),
  authMethods: ["XOAUTH2"],
  onAuth(auth, session, done) {
    const token = readFileSync(given.token, "utf-8");
    const good = auth.method === "XOAUTH2" && auth.username === given.mailbox && auth.accessToken === token;
    tell({ login: auth.accessToken, good });
    if (good) return done(null, { user: auth.username });
    return done(null, { data: { status: "401", schemes: "bearer", scope: "mail" } });
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
server.listen(given.port, "127.0.0.1", () => tell({ listening: given.port }));
