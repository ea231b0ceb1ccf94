// Commands by HTTP; each says in one sentence what is wrong.

let viewerKey = "";

export const introduce = (key) => { viewerKey = key; };

export async function post(path, body) {
  const headers = { "X-Rlcar-Viewer": viewerKey, "X-CSRF-Token": cookie("rlcar_csrf") };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return told(await fetch(path, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) }));
}

export const get = async (path) => told(await fetch(path, { headers: { Accept: "application/json" } }));

async function told(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
  return answer;
}

function cookie(name) {
  const found = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
}
