"""The window under simulated key presses: a person's lap, a crash, and a policy's lap."""

import os
import shutil
import subprocess

import numpy as np
import pygame
import pytest

from rlcar.config import make_race_config
from rlcar.errors import UserError
from rlcar.evaluation.drivers import full_throttle
from rlcar.viewing.car_policy import CarPolicy
from rlcar.viewing.play import play

RACE = make_race_config("classic")


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.quit()


class Fingers:
    """Presses and releases keys; calls `think(step, rays)` for those that should be down."""

    def __init__(self, think):
        self._think, self._down, self._step = think, set(), 0

    def __call__(self, time_step):
        wanted = self._think(self._step, np.asarray(time_step.observation)[0])
        for key in wanted - self._down:
            self._press(pygame.KEYDOWN, key)
        for key in self._down - wanted:
            self._press(pygame.KEYUP, key)
        self._down, self._step = wanted, self._step + 1

    def _press(self, kind, key):
        pygame.event.post(pygame.event.Event(kind, key=key))


def _steer(observation):
    left = observation[3] + observation[4] - observation[0] - observation[1]
    turn = {pygame.K_LEFT} if left > 0.1 else {pygame.K_RIGHT} if left < -0.1 else set()
    return {pygame.K_UP, *turn}


def test_key_presses_drive_a_lap_and_the_next_track_follows():
    def think(step, observation):
        return {pygame.K_q} if step > 330 else _steer(observation)

    played = play(RACE, [20_000, 20_001], frames_per_s=0, on_frame=Fingers(think))
    assert played.laps == 1
    assert played.crashes == 0
    assert 230 < played.best_lap_steps < 330


def test_a_crash_is_counted_and_the_same_track_starts_again():
    def think(step, observation):
        return {pygame.K_q} if step > 120 else {pygame.K_UP}

    played = play(RACE, [20_000], frames_per_s=0, on_frame=Fingers(think))
    assert played.crashes >= 1
    assert (played.laps, played.best_lap_steps) == (0, None)


def test_the_space_bar_switches_to_the_policy():
    def think(step, observation):
        return {pygame.K_q} if step > 300 else {pygame.K_SPACE} if step == 1 else set()

    policy = CarPolicy(full_throttle, None, "full_throttle")
    played = play(RACE, [20_000, 20_001], policy, frames_per_s=0, on_frame=Fingers(think))
    assert played.laps == 1


def test_r_puts_the_car_back_to_the_start():
    speeds = []

    def think(step, observation):
        speeds.append(float(observation[5]))
        return {pygame.K_q} if step > 30 else {pygame.K_r} if step == 20 else {pygame.K_UP}

    play(RACE, [20_000], frames_per_s=0, on_frame=Fingers(think))
    assert speeds[20] > 0.5
    assert speeds[21] == 0.0


@pytest.fixture
def screen(monkeypatch):
    """A real X server without a monitor; whatever `xdotool` types there are true key presses."""
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        pytest.skip("Xvfb or xdotool is not installed: apt-get install xvfb xdotool")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as told:
        monkeypatch.setenv("DISPLAY", f":{told.readline().strip()}")
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    yield
    pygame.quit()
    server.terminate()
    server.wait()


class Typist(Fingers):
    """Presses the keys of the X server, so that they come the way a keyboard's do."""

    def _press(self, kind, key):
        name = pygame.key.name(key)
        name = name.capitalize() if len(name) > 1 else name
        command = {pygame.KEYDOWN: "keydown", pygame.KEYUP: "keyup"}[kind]
        subprocess.run(["xdotool", command, name], check=True)


@pytest.mark.slow
def test_keys_pressed_in_a_window_of_an_x_server_drive_a_lap(screen):
    def think(step, observation):
        return {pygame.K_q} if step > 400 else _steer(observation)

    played = play(RACE, [20_000, 20_001], frames_per_s=60, on_frame=Typist(think))
    assert played.laps == 1
    assert played.crashes == 0


def test_no_display_is_one_sentence(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "nosuchdriver")
    with pytest.raises(UserError, match="no window can be opened"):
        play(RACE, [20_000])
