"""Work whose state is a file that grows: it is cut back to where the checkpoint was."""

import csv
import io

from avtomatika_worker import TaskContext, Worker

worker = Worker(worker_type="report")


@worker.skill(version="1")
async def squares(ctx: TaskContext, rows: int) -> dict:
    """Write a table row by row."""
    table = await ctx.files.path_to("table.csv")
    loaded = await ctx.checkpoint.load()
    row = loaded["row"] if loaded else 0
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        for number in range(row, rows):
            writer.writerow([number, number**2])
            if ctx.checkpoint.due:
                file.flush()  # what is only in Python's buffer is not in the file
                await ctx.checkpoint.save({"row": number + 1}, files=[table])
    return {"rows": sum(1 for _ in csv.reader(io.StringIO(table.read_text())))}
