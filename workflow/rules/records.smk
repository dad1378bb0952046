# Snakemake's records of what results were made from, kept beside them: DVC carries them to other checkouts. No rules.
import errno
from importlib import metadata

from snakemake.io import IOFile

from refusal import records

# Snakemake has no public way to give it a record; all that is private of it stands in this file.
try:
    from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
    from snakemake.persistence.file import FilePersistence
    from snakemake.settings.enums import PersistenceBackend

    known = RECORD_FORMAT_VERSION == records.FORMAT and hasattr(FilePersistence, "_write_record")
    known = known and {*records.DECISIVE, "endtime"} <= MetadataRecord.model_fields.keys()
except ImportError:
    known = False
if not known:
    raise WorkflowError(
        f"snakemake {metadata.version('snakemake')} keeps records in another form than workflow/rules/records.smk knows:"
        " install the version in requirements.lock"
    )


def reconcile_records():
    """Make Snakemake's records and those beside the results fit the results as they are now."""
    if workflow.workflow_settings.persistence_backend != PersistenceBackend.FILE:
        return
    persistence = FilePersistence(nolock=True)

    def read(path):
        return persistence.metadata(IOFile(path))

    def write(path, record):
        persistence._write_record(path, MetadataRecord(**record))

    for folder in sorted({path.parent for path in Path("results").glob("*/*.json")}):
        seen = Path(".snakemake", "records", f"{folder.name}.json")
        try:
            lost = records.reconcile(folder, seen, read, write)
        except UserError as error:
            raise WorkflowError(str(error)) from None
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            # if a job wants to write there, Snakemake says so
            print(f"{folder}: cannot be written, so its records stay as they are", file=sys.stderr)
            continue
        if lost:
            more = f" (and {len(lost) - 1} more)" if lost[1:] else ""
            print(f"{lost[0]}{more}: {records.LOST}: it is made again if needed", file=sys.stderr)


# Not in the processes of jobs, nor beside another Snakemake: what its jobs have just written has no record yet.
if workflow.is_main_process and not any(Path(".snakemake", "locks").glob("*.lock")):
    reconcile_records()
