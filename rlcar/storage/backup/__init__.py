"""Backups of runs, models, data sets and sweeps, in a folder or an object store.

    <target>/rlcar-backup.json            the format of the backup
             blobs/5f/5f0c…               a file's bytes, under their SHA-256
             snapshots/000012-….json      which files there were, and their blobs; written last
             leases/….json                who works on the backup now

Files with the same bytes share a blob, so a snapshot costs what has changed. A blob is the file
itself, and standard tools such as `sha256sum` can check and read it.
"""
