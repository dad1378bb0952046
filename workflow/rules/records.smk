# Snakemake's records of what results were made from, kept beside them: DVC carries them to other checkouts. No rules.
from snakemake.persistence import MetadataRecord
from snakemake.persistence.file import FilePersistence

from refusal import artifacts

RECORDS = "records.json"
# What decides whether a file is made again; times and logs would differ from run to run.
DECISIVE = (
    "rule",
    "input",
    "params",
    "code",
    "software_stack_hash",
    "record_format_version",
    "input_checksums",
)
# Older than any source: Snakemake then compares inputs by content.
OLD = 1


def records_of(name):
    """Where the records of a model stand, and the note of which of them Snakemake has."""
    return Path("results", name, RECORDS), Path(".snakemake", "records", name)


def keep_records():
    """Write down the records of each model's results, and of the files that they were made from."""
    persistence = FilePersistence(nolock=True)
    for folder in (path.parent for path in Path("results").glob("*/model.json")):
        waiting, found = sorted(str(path) for path in folder.rglob("*") if path.is_file()), {}
        while waiting:
            path = waiting.pop()
            if path in found or not (record := persistence._read_record(path)):
                continue
            found[path] = {key: record[key] for key in DECISIVE}
            waiting += record.input or []
        if found:
            records, noted = records_of(folder.name)
            # the files of one job share a record
            jobs = {artifacts.digest(record): {"outputs": [], **record} for record in found.values()}
            for path, record in sorted(found.items()):
                jobs[artifacts.digest(record)]["outputs"].append(path)
            artifacts.write_json(records, sorted(jobs.values(), key=lambda job: job["outputs"]))
            note(records, noted)


def adopt_records():
    """Give Snakemake the records of results that came from elsewhere, in place of its own."""
    for records in Path("results").glob(f"*/{RECORDS}"):
        folder, noted = records.parent, records_of(records.parent.name)[1]
        if noted.exists() and noted.read_text() == artifacts.sha256(records):
            continue
        persistence = FilePersistence(nolock=True)
        for path in filter(Path.is_file, folder.rglob("*")):
            persistence._delete_record(str(path))
        for job in artifacts.read_json(records):
            for path in map(Path, job.pop("outputs")):
                persistence._write_record(str(path), MetadataRecord(**job))
                if path.exists():
                    os.utime(path, (OLD, OLD))
        note(records, noted)


def note(records, noted):
    """Remember which records Snakemake has."""
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.write_text(artifacts.sha256(records))
