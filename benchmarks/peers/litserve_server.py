"""A peer of benchmarks/serving.py: LitServe as its documentation has it, one worker."""

import sys

import litserve
from served_policy import Act


class ActAPI(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.act = Act()

    def decode_request(self, request: dict[str, list[float]]) -> list[float]:
        return request["observation"]

    def predict(self, observation: list[float]) -> list[float]:
        return self.act(observation)

    def encode_response(self, action: list[float]) -> dict[str, list[float]]:
        return {"action": action}


if __name__ == "__main__":
    server = litserve.LitServer(ActAPI(api_path="/v1/act"), accelerator="cpu")
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False
    )
