-- Each tenant by itself, which is what an application mostly asks.
SELECT name, plan FROM tenants WHERE tenant_id = '00000000-0000-4000-8000-000000001eef'
SELECT name FROM tenants WHERE tenant_id = '00000000-0000-4000-8000-000000001EEF'
SELECT name FROM tenants WHERE tenant_id = '{00000000-0000-4000-8000-000000001eef}'
SELECT name FROM tenants WHERE tenant_id = $1 @ 00000000-0000-4000-8000-000000003dde
SELECT name FROM tenants WHERE tenant_id = '00000000-0000-4000-8000-000000003dde'::uuid
SELECT name FROM tenants WHERE tenant_id = uuid '00000000-0000-4000-8000-000000003dde'
SELECT count(*) FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-000000005ccd'
=SELECT project_id, task_id, title FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-000000005ccd' ORDER BY due NULLS FIRST, project_id, task_id
=SELECT project_id, count(*), sum(hours) FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-000000005ccd' GROUP BY project_id ORDER BY 1
=SELECT state, count(*) FROM tasks WHERE tenant_id = $1 GROUP BY state ORDER BY state @ 00000000-0000-4000-8000-000000007bbc
=SELECT p.title, t.title FROM projects p JOIN tasks t USING (tenant_id, project_id) WHERE tenant_id = '00000000-0000-4000-8000-000000007bbc' ORDER BY p.project_id, t.task_id
SELECT n.name, p.price FROM tenants n LEFT JOIN plans p USING (plan) WHERE tenant_id = '00000000-0000-4000-8000-000000009aab'
SELECT p.title, (SELECT count(*) FROM tasks t WHERE t.tenant_id = p.tenant_id AND t.project_id = p.project_id AND done) FROM projects p WHERE tenant_id = '00000000-0000-4000-8000-000000009aab'
=WITH open AS (SELECT * FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-00000000b99a' AND state = 'open') SELECT project_id, task_id FROM open ORDER BY 1, 2
=SELECT project_id, task_id, rank() OVER (PARTITION BY project_id ORDER BY hours) FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-00000000b99a' ORDER BY 1, 2
SELECT title FROM projects WHERE tenant_id = '00000000-0000-4000-8000-00000000b99a' EXCEPT SELECT title FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-00000000b99a'
SELECT name FROM tenants WHERE tenant_id = 'nothing'
SELECT name FROM tenants WHERE tenant_id IN ('00000000-0000-4000-8000-000000001eef', '00000000-0000-4000-8000-000000003dde')
SELECT name FROM tenants WHERE tenant_id = ANY($1) @ {00000000-0000-4000-8000-000000001eef,00000000-0000-4000-8000-000000003dde}
SELECT name FROM tenants WHERE tenant_id = ANY($1::uuid[]) AND plan = 'free' @ {00000000-0000-4000-8000-000000001eef,00000000-0000-4000-8000-000000007bbc}
-- Over all tenants.
SELECT name, plan, created FROM tenants
=SELECT name FROM tenants ORDER BY name
=SELECT name FROM tenants ORDER BY created DESC LIMIT 5
=SELECT tenant_id FROM tenants ORDER BY tenant_id LIMIT 6
=SELECT tenant_id, name FROM tenants ORDER BY tenant_id DESC OFFSET 3 LIMIT 4
=SELECT plan, count(*) FROM tenants GROUP BY plan ORDER BY plan NULLS FIRST
=SELECT plan, min(created), max(created) FROM tenants GROUP BY plan ORDER BY plan
=SELECT p.plan, p.price, count(*) FROM tenants t JOIN plans p USING (plan) GROUP BY p.plan, p.price ORDER BY p.price
SELECT sum(p.price) FROM tenants t JOIN plans p USING (plan)
SELECT sum(p.price * p.seats), count(p.seats) FROM tenants t LEFT JOIN plans p USING (plan)
SELECT count(*), count(plan), count(DISTINCT plan) FROM tenants
SELECT DISTINCT plan FROM tenants
=SELECT DISTINCT plan FROM tenants ORDER BY plan DESC NULLS LAST
SELECT count(*), sum(budget), avg(budget), min(starts), max(starts) FROM projects
SELECT stddev(budget), variance(budget) FROM projects
SELECT sum(budget) / NULLIF(count(budget), 0) FROM projects
=SELECT title, count(*), sum(budget), avg(budget) FROM projects GROUP BY title ORDER BY title
=SELECT starts, count(*) FROM projects GROUP BY starts ORDER BY starts
=SELECT tenant_id, project_id, budget FROM projects ORDER BY budget DESC NULLS LAST, tenant_id, project_id LIMIT 8
=SELECT tenant_id, project_id FROM projects ORDER BY starts, title, tenant_id, project_id LIMIT 11
SELECT state, count(*) FROM tasks GROUP BY state
=SELECT state, done, count(*), sum(hours), avg(hours) FROM tasks GROUP BY state, done ORDER BY state, done
=SELECT state, sum(effort), max(effort), min(effort) FROM tasks GROUP BY state ORDER BY state
SELECT sum(hours), avg(hours), min(hours), max(hours) FROM tasks
SELECT avg(hours)::numeric(6,2), round(sum(hours), 3) FROM tasks
SELECT stddev_pop(hours), var_samp(hours) FROM tasks
SELECT sum(effort) FROM tasks
SELECT avg(effort) FROM tasks
SELECT bool_and(done), bool_or(done), count(*) FILTER (WHERE done) FROM tasks
SELECT count(DISTINCT (state, done)) FROM tasks
SELECT count(DISTINCT tenant_id) FROM tasks
SELECT count(DISTINCT state), sum(DISTINCT task_id) FROM tasks
=SELECT due, count(*) FROM tasks GROUP BY due ORDER BY due NULLS FIRST LIMIT 6
=SELECT date_trunc('month', due) AS m, count(*) FROM tasks GROUP BY m HAVING count(*) > 3 ORDER BY m
=SELECT tenant_id, count(*) AS n FROM tasks GROUP BY tenant_id ORDER BY n DESC, tenant_id LIMIT 4
SELECT tenant_id, project_id, count(*) FROM tasks GROUP BY tenant_id, project_id
SELECT tenant_id, project_id, sum(hours) FROM tasks GROUP BY tenant_id, project_id HAVING sum(hours) > 5
=SELECT project_id, count(*) FROM tasks GROUP BY project_id ORDER BY project_id
=SELECT effort, tenant_id, project_id, task_id FROM tasks ORDER BY effort, tenant_id, project_id, task_id LIMIT 9
=SELECT hours, tenant_id, project_id, task_id FROM tasks ORDER BY hours DESC NULLS LAST, 2, 3, 4 LIMIT 9
=SELECT title, state FROM tasks ORDER BY state, title, tenant_id, project_id, task_id LIMIT 20
SELECT title, state FROM tasks WHERE due BETWEEN '2026-01-10' AND '2026-01-14'
SELECT title FROM tasks WHERE due = $1 AND state = $2 @ 2026-01-12 | open
SELECT title FROM tasks WHERE effort > interval '4 hours' AND NOT done
SELECT lower(title), due + 1, effort * 2, hours / 3 FROM tasks WHERE project_id = 1
=SELECT n.name, count(*) FROM tenants n JOIN tasks t USING (tenant_id) GROUP BY n.name ORDER BY n.name
=SELECT n.name, p.title, sum(t.hours) FROM tenants n JOIN projects p USING (tenant_id) JOIN tasks t USING (tenant_id, project_id) GROUP BY n.name, p.title ORDER BY n.name, p.title LIMIT 15
=SELECT n.plan, count(DISTINCT p.project_id), count(*) FROM tenants n JOIN projects p USING (tenant_id) GROUP BY n.plan ORDER BY n.plan
SELECT n.name FROM tenants n WHERE EXISTS (SELECT FROM projects p WHERE p.tenant_id = n.tenant_id AND p.budget > 100000000)
SELECT n.name FROM tenants n WHERE NOT EXISTS (SELECT FROM projects p WHERE p.tenant_id = n.tenant_id)
SELECT name FROM tenants WHERE tenant_id IN (SELECT tenant_id FROM tasks WHERE state = 'dropped')
SELECT name FROM tenants WHERE plan IN (SELECT plan FROM plans WHERE price > 10)
SELECT n.name, s.n FROM tenants n JOIN (SELECT tenant_id, count(*) AS n FROM tasks WHERE done GROUP BY tenant_id) s USING (tenant_id)
=WITH s AS (SELECT tenant_id, sum(hours) AS h FROM tasks GROUP BY tenant_id) SELECT n.name, s.h FROM tenants n JOIN s USING (tenant_id) ORDER BY s.h DESC NULLS LAST, n.name LIMIT 5
SELECT name, (SELECT max(due) FROM tasks t WHERE t.tenant_id = n.tenant_id) FROM tenants n
SELECT name, x.title FROM tenants n CROSS JOIN LATERAL (SELECT title FROM projects p WHERE p.tenant_id = n.tenant_id ORDER BY project_id LIMIT 1) x
SELECT tenant_id, project_id, row_number() OVER (PARTITION BY tenant_id ORDER BY project_id) FROM projects
SELECT tenant_id, project_id, task_id, sum(hours) OVER (PARTITION BY tenant_id, project_id ORDER BY task_id) FROM tasks
=SELECT DISTINCT ON (tenant_id) tenant_id, project_id, title FROM projects ORDER BY tenant_id, starts DESC, project_id
=SELECT DISTINCT ON (state) state, tenant_id, project_id, task_id FROM tasks ORDER BY state, hours DESC NULLS LAST, tenant_id, project_id, task_id
SELECT tenant_id FROM tenants UNION ALL SELECT tenant_id FROM projects
SELECT tenant_id FROM tenants EXCEPT SELECT tenant_id FROM projects
SELECT tenant_id, project_id FROM projects INTERSECT SELECT tenant_id, project_id FROM tasks
SELECT title FROM projects UNION SELECT title FROM tasks
SELECT count(*) FROM (SELECT DISTINCT title FROM tasks) s
SELECT max(n) FROM (SELECT count(*) AS n FROM tasks GROUP BY tenant_id) s
SELECT a.tenant_id FROM tenants a JOIN tenants b ON a.plan = b.plan AND a.tenant_id < b.tenant_id
=SELECT plan, string_agg(name, ', ' ORDER BY name) FROM tenants GROUP BY plan ORDER BY plan
=SELECT state, array_agg(task_id ORDER BY tenant_id, project_id, task_id) FROM tasks WHERE hours > 4 GROUP BY state ORDER BY state
SELECT string_agg(name, ';' ORDER BY created) FROM tenants
SELECT min(tenant_id::text), max(name) FROM tenants
SELECT plan, price, seats FROM plans
=SELECT plan FROM plans ORDER BY price DESC
-- Writes.
INSERT INTO tenants (tenant_id, name, plan) VALUES ('00000000-0000-4000-8000-0000000f0001', 'new', 'free')
INSERT INTO tenants (tenant_id, name, plan) VALUES ('00000000-0000-4000-8000-0000000f0002', 'b', 'free'), ('00000000-0000-4000-8000-0000000f0003', 'c', NULL), ('00000000-0000-4000-8000-0000000f0004', 'd', 'corp') RETURNING tenant_id, name
INSERT INTO projects (tenant_id, project_id, title) VALUES ('00000000-0000-4000-8000-0000000f0001', 1, 'p'), ('00000000-0000-4000-8000-0000000f0001', 2, 'q')
INSERT INTO tasks (tenant_id, project_id, task_id, title) SELECT tenant_id, project_id, 1, 'first of ' || title FROM projects WHERE tenant_id = '00000000-0000-4000-8000-0000000f0001'
UPDATE tasks SET done = true, hours = 1.5 WHERE tenant_id = '00000000-0000-4000-8000-0000000f0001' AND project_id = 1 RETURNING title, hours
UPDATE tenants SET plan = 'team' WHERE tenant_id IN ('00000000-0000-4000-8000-0000000f0002', '00000000-0000-4000-8000-0000000f0003')
UPDATE projects p SET title = n.name FROM tenants n WHERE n.tenant_id = p.tenant_id AND p.tenant_id = '00000000-0000-4000-8000-0000000f0001'
DELETE FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-0000000f0001'
DELETE FROM projects WHERE tenant_id = '00000000-0000-4000-8000-0000000f0001'
BEGIN ;; INSERT INTO projects (tenant_id, project_id) VALUES ('00000000-0000-4000-8000-0000000f0002', 1) ;; INSERT INTO tasks (tenant_id, project_id, task_id) VALUES ('00000000-0000-4000-8000-0000000f0002', 1, 1) ;; SELECT count(*) FROM tasks WHERE tenant_id = '00000000-0000-4000-8000-0000000f0002' ;; COMMIT
UPDATE plans SET price = price + 1
INSERT INTO plans VALUES ('nano', 1, 1) ON CONFLICT DO NOTHING
DELETE FROM plans WHERE plan = 'nano' RETURNING seats
