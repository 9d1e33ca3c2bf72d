// A run as code that reproduces it: for a shell, for Python, for a test.
import { write } from "./json.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A JSON value as Python writes it. */
export function python(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`).join(", ")}}`;
  return typeof value === "string" ? JSON.stringify(value) : write(value);
}

const identifier = (name) => name.replace(/\W/g, "_").replace(/^(?=\d)/, "_").toLowerCase();

export const COPIES = {
  curl: (skill, params) => `curl ${location.origin}/api/jobs \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(write({ skill, params }))}\n`,
  Python: (skill, params) => `import json
import time
import urllib.request

URL = ${JSON.stringify(`${location.origin}/api/jobs`)}


def call(url, data=None):
    with urllib.request.urlopen(url, data and json.dumps(data).encode()) as response:
        return json.load(response)


job_id = call(URL, {"skill": ${JSON.stringify(skill)}, "params": ${python(params)}})["job_id"]
while (job := call(f"{URL}/{job_id}"))["state"] in ("queued", "running"):
    time.sleep(0.2)
print(job["state"], job["result"] or job["error"])
`,
  test: (skill, params) => `from app.main import worker  # where your worker is


async def test_${identifier(skill)}(worker_harness):
    h = await worker_harness(worker)
    result = await h.run(${JSON.stringify(skill)}, ${python(params)})
    assert result.status == "success"
`,
};
