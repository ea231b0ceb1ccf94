"""Tracks of the user's own: read from CSV files, checked, and written as such files.

`reading` turns files into settings (`rlcar.config.own_track`), `roads` turns the settings into
roads for a track pool, and `export` writes any track in the format of the files.
"""
