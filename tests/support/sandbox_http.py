"""A plain HTTP client for tests of the sandbox."""

from __future__ import annotations

from typing import Any, Dict, List

import requests


class Http:
    """Requests with one key to one sandbox; answers are requests.Response."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = "Bearer " + key

    def get(self, path: str, **parameters: Any) -> requests.Response:
        return self.session.get(self.url + path, params=parameters, allow_redirects=False)

    def post(self, path: str, body: Any = None) -> requests.Response:
        return self.session.post(self.url + path, json=body, allow_redirects=False)

    def put(self, path: str, body: Any) -> requests.Response:
        return self.session.put(self.url + path, json=body)

    def patch(self, path: str, body: Any) -> requests.Response:
        return self.session.patch(self.url + path, json=body)

    def delete(self, path: str, body: Any = None) -> requests.Response:
        return self.session.delete(self.url + path, json=body)

    def create(self, kind: str, **body: Any) -> Dict[str, Any]:
        """A new object; fails the test if it is refused."""
        answer = self.post("/v1/" + kind, body)
        assert answer.status_code == 200, answer.text
        value: Dict[str, Any] = answer.json()
        return value

    def names(self, path: str, **parameters: Any) -> List[str]:
        """The names of a listed page, in order."""
        return [item["name"] for item in self.get(path, **parameters).json()["objects"]]

    def insert(self, kind: str, object_id: str, *events: Dict[str, Any]) -> List[str]:
        answer = self.post(f"/v1/{kind}/{object_id}/insert", {"events": list(events)})
        assert answer.status_code == 200, answer.text
        ids: List[str] = answer.json()["row_ids"]
        return ids

    def btql(self, query: Any, **settings: Any) -> Dict[str, Any]:
        answer = self.post("/btql", dict(settings, query=query))
        assert answer.status_code == 200, answer.text
        value: Dict[str, Any] = answer.json()
        return value
