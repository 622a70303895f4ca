"""As much of curl as the README uses, for machines that have none: -sw, -u, -H, -d, -X and one address."""

import argparse
import sys

import httpx


def main() -> int:
    """Send one request and write what is answered."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-sw", dest="end", default="")
    parser.add_argument("-u", dest="user", default="")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("-X", dest="method")
    asked = parser.parse_args()
    data = sys.stdin.read() if asked.data == "@-" else asked.data
    headers = dict(line.split(": ", 1) for line in asked.headers)
    user, _, password = asked.user.partition(":")
    method = asked.method or ("GET" if data is None else "POST")
    auth = (user, password) if asked.user else None
    answer = httpx.request(method, asked.url, content=data, headers=headers, auth=auth, timeout=60)
    sys.stdout.write(answer.text + asked.end.replace("\\n", "\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
