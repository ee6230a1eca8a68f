import type { Task } from "@/lib/tasks-client";
import { SORTS, type Sort, type Status } from "@/lib/view";

type Props = {
  tasks: Task[];
  status: Status;
  setStatus: (status: Status) => void;
  sort: Sort;
  setSort: (sort: Sort) => void;
  search: string;
  setSearch: (search: string) => void;
};

export function Toolbar({ tasks, status, setStatus, sort, setSort, search, setSearch }: Props) {
  const done = tasks.filter((task) => task.completed).length;
  const filters: [Status, string, number][] = [
    ["all", "All", tasks.length],
    ["pending", "Open", tasks.length - done],
    ["completed", "Done", done],
  ];
  return (
    <div className="toolbar">
      <div className="segments" role="group" aria-label="Show">
        {filters.map(([value, name, count]) => (
          <button key={value} aria-pressed={status === value} onClick={() => setStatus(value)}>
            {name} <span className="count">{count}</span>
          </button>
        ))}
      </div>
      <input
        type="search"
        aria-label="Search"
        placeholder="Search"
        value={search}
        onChange={(event) => setSearch(event.target.value)}
      />
      <select aria-label="Sort by" value={sort} onChange={(event) => setSort(event.target.value as Sort)}>
        {Object.entries(SORTS).map(([value, name]) => (
          <option key={value} value={value}>
            {name}
          </option>
        ))}
      </select>
    </div>
  );
}
