// Every field as a client should see it. Equal is false for `any` and `unknown`, and where null or an optional is lost.
import type { components } from "./api";

type Schemas = components["schemas"];
type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
type Expect<T extends true> = T;

type Priority = "low" | "medium" | "high";
type RepeatFrom = "due" | "completion";
type Op = "create" | "update" | "complete" | "delete";

interface Task {
  id: string;
  user_id: string;
  title: string;
  description: string | null;
  completed: boolean;
  completed_at: string | null;
  priority: Priority;
  due_date: string | null;
  category: string | null;
  tags: string[];
  checklist: Schemas["ChecklistItem"][];
  checklist_done: number;
  checklist_total: number;
  recurrence: string | null;
  repeat_from: RepeatFrom;
  position: number;
  created_at: string;
  updated_at: string;
  deleted_at: string | null;
  version: number;
}

interface TaskUpdate {
  title?: string;
  description?: string | null;
  completed?: boolean;
  priority?: Priority | null;
  due_date?: string | null;
  category?: string | null;
  tags?: string[] | null;
  checklist?: Schemas["ChecklistItemCreate"][] | null;
  recurrence?: string | null;
  repeat_from?: RepeatFrom | null;
  position?: number | null;
}

interface TaskCreate extends TaskUpdate {
  id?: string | null;
  title: string;
}

interface ImportTask extends TaskCreate {
  created_at?: string | null;
  updated_at?: string | null;
  completed_at?: string | null;
  deleted_at?: string | null;
  series?: string | null;
  occurrence?: number | null;
}

interface ExportTask extends Task {
  series: string | null;
  occurrence: number | null;
}

interface CreateOperation {
  op: "create";
  task: Schemas["TaskCreate"];
}

interface UpdateOperation {
  op: "update";
  id: string;
  task: Schemas["TaskUpdate"];
  version?: number;
}

interface CompleteOperation {
  op: "complete";
  id: string;
  completed?: boolean;
  version?: number;
}

interface DeleteOperation {
  op: "delete";
  id: string;
  permanent?: boolean;
  version?: number;
}

type Operation =
  | Schemas["CreateOperation"]
  | Schemas["UpdateOperation"]
  | Schemas["CompleteOperation"]
  | Schemas["DeleteOperation"];

interface Stats {
  total: number;
  completed: number;
  pending: number;
  overdue: number;
  due_today: number;
  by_priority: Schemas["ByPriority"];
  by_category: { [category: string]: number };
  by_tag: { [tag: string]: number };
  completed_per_day: { [day: string]: number };
}

interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  message: string;
  code: string;
  errors: Schemas["FieldError"][];
  request_id: string | null;
}

export type Checks = [
  Expect<Equal<Schemas["Task"], Task>>,
  Expect<Equal<Schemas["TaskUpdate"], TaskUpdate>>,
  Expect<Equal<Schemas["TaskCreate"], TaskCreate>>,
  Expect<Equal<Schemas["ChecklistItem"], { title: string; completed: boolean }>>,
  Expect<Equal<Schemas["ChecklistItemCreate"], { title: string; completed?: boolean }>>,
  Expect<Equal<Schemas["ChecklistItemUpdate"], { title?: string; completed?: boolean }>>,
  Expect<Equal<Schemas["Completion"], { completed?: boolean }>>,
  Expect<Equal<Schemas["Move"], Schemas["MoveAfter"] | Schemas["MoveBefore"]>>,
  Expect<Equal<Schemas["MoveAfter"], { after: string | null }>>,
  Expect<Equal<Schemas["MoveBefore"], { before: string | null }>>,
  Expect<Equal<Schemas["Deleted"], { deleted: number }>>,
  Expect<Equal<Schemas["Operation"], Operation>>,
  Expect<Equal<Schemas["CreateOperation"], CreateOperation>>,
  Expect<Equal<Schemas["UpdateOperation"], UpdateOperation>>,
  Expect<Equal<Schemas["CompleteOperation"], CompleteOperation>>,
  Expect<Equal<Schemas["DeleteOperation"], DeleteOperation>>,
  Expect<Equal<Schemas["Batch"], { operations: Schemas["Operation"][] }>>,
  Expect<Equal<Schemas["Result"], { op: Op; task: Schemas["Task"] }>>,
  Expect<Equal<Schemas["BatchResults"], { results: Schemas["Result"][] }>>,
  Expect<Equal<Schemas["Change"], Schemas["Changed"] | Schemas["Purged"]>>,
  Expect<Equal<Schemas["Changed"], { id: string; version: number; purged: false; task: Schemas["Task"] }>>,
  Expect<Equal<Schemas["Purged"], { id: string; version: number; purged: true; task: null }>>,
  Expect<Equal<Schemas["Changes"], { changes: Schemas["Change"][]; next: string; has_more: boolean }>>,
  Expect<Equal<Schemas["Stats"], Stats>>,
  Expect<Equal<Schemas["ByPriority"], { [priority in Priority]: number }>>,
  Expect<Equal<Schemas["ExportFile"], { version: number; tasks: Schemas["ExportTask"][] }>>,
  Expect<Equal<Schemas["ExportTask"], ExportTask>>,
  Expect<Equal<Schemas["ImportFile"], { version?: number; tasks: Schemas["ImportTask"][] }>>,
  Expect<Equal<Schemas["ImportTask"], ImportTask>>,
  Expect<Equal<Schemas["Imported"], { created: number; skipped: number }>>,
  Expect<Equal<Schemas["Problem"], Problem>>,
  Expect<Equal<Schemas["FieldError"], { field: string; message: string }>>,
];
