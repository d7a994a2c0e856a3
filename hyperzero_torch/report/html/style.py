"""The page's stylesheet."""

_LIGHT = """color-scheme:light;--ink:#16181d;--muted:#5d6470;--grid:#e3e6ea;--paper:#ffffff;
--page:#f5f6f8;--accent:#0072B2;--blue:#0072B2;--sky:#56B4E9;
--shadow:0 1px 2px rgba(20,24,32,.06),0 2px 10px rgba(20,24,32,.04)"""
_DARK = """color-scheme:dark;--ink:#eceef1;--muted:#a2a9b4;--grid:#30353d;--paper:#191c21;
--page:#101215;--accent:#56B4E9;--blue:#3b9ce0;--sky:#a9dcf7;--shadow:none"""

CSS = f"""
:root{{{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{_DARK}}}}}
:root[data-theme=dark]{{{_DARK}}}
"""

CSS += """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
@media (prefers-reduced-motion:no-preference){html{scroll-behavior:smooth}}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.5;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,.note{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:36px}
h1{font-size:clamp(1.7rem,4.5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:.1em 0 .2em;
overflow-wrap:anywhere}
h2{font-size:1.35rem;letter-spacing:-.01em;margin:0 0 .5em}
h3{font-size:1rem;font-weight:600;margin:0 0 .5em;overflow-wrap:anywhere}
header p,main p{color:var(--muted);margin:.2em 0 1em;max-width:75ch;overflow-wrap:anywhere}
.eyebrow{text-transform:uppercase;letter-spacing:.09em;font-size:.75rem;font-weight:600;margin:0}
.top{display:flex;flex-wrap:wrap;justify-content:space-between;align-items:center;gap:6px 16px}
.tools{display:flex;flex-wrap:wrap;gap:8px}
button{font:inherit;font-size:.82rem;color:var(--ink);background:var(--paper);cursor:pointer;
border:1px solid var(--muted);border-radius:999px;padding:4px 12px}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.skip{position:absolute;left:-999em;padding:8px 14px;background:var(--paper);color:var(--accent)}
.skip:focus{left:8px;top:8px;z-index:9}
nav{display:flex;flex-wrap:wrap;gap:6px 18px;padding-bottom:8px;border-bottom:1px solid var(--grid)}
nav a{color:var(--accent);text-decoration:none;font-size:.9rem}
nav a:hover{text-decoration:underline}
section{padding:34px 0 0}
main{padding-bottom:64px}
.blocks{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:16px;
align-items:start}
.blocks>*{min-width:0}
.wide{grid-column:1/-1}
.blocks>p{margin:0}
figure,.sheet,.tiles>div{background:var(--paper);border:1px solid var(--grid);border-radius:12px;
box-shadow:var(--shadow)}
figure,.sheet{margin:0;padding:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,205px),1fr));gap:12px;
margin:0}
.tiles>div{padding:12px 16px;min-width:0}
dt{color:var(--muted);font-size:.82rem}
dd{margin:0;font-size:1.55rem;font-weight:650;letter-spacing:-.02em;line-height:1.25;
font-variant-numeric:tabular-nums}
dd.hint{font-size:.82rem;font-weight:400;letter-spacing:0;color:var(--muted);line-height:1.4;
overflow-wrap:anywhere;margin-top:2px}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;margin:0 0 6px;padding:0;
font-size:.82rem;color:var(--muted)}
.legend li{display:flex;align-items:center;gap:6px}
.legend i{flex:none;width:12px;height:12px;background:var(--c)}
.legend .circle{border-radius:50%;width:10px;height:10px;box-shadow:0 0 0 1px var(--muted)}
.legend .ring{border-radius:50%;width:10px;height:10px;background:none;border:2px solid var(--c)}
.legend .square{border-radius:2px;box-shadow:0 0 0 1px var(--grid)}
.legend .diamond{transform:rotate(45deg) scale(.75)}
.legend .star{clip-path:polygon(50% 0,63% 34%,100% 36%,71% 58%,82% 94%,50% 73%,18% 94%,29% 58%,
0 36%,37% 34%);width:15px;height:15px}
.legend .bar{width:3px;height:13px}
.legend .solid,.legend .dashed,.legend .dotted{background:none;width:20px;height:0;
border-top:2px solid var(--c)}
.legend .dashed{border-top-style:dashed}
.legend .border{width:22px;height:12px;border-radius:2px;background:linear-gradient(90deg,var(--c)
60%,transparent 0) 0 5px/8px 2px repeat-x #575d6d}
.legend .dotted{border-top-style:dotted}
.legend .longdash{background:repeating-linear-gradient(90deg,var(--c) 0 9px,transparent 9px 12px);
width:22px;height:2px}
.legend .dashdot{background:repeating-linear-gradient(90deg,var(--c) 0 8px,transparent 8px 11px,
var(--c) 11px 13px,transparent 13px 16px);width:24px;height:2px}
.legend .triangle{clip-path:polygon(50% 0,100% 100%,0 100%)}
.legend .plus{clip-path:polygon(35% 0,65% 0,65% 35%,100% 35%,100% 65%,65% 65%,65% 100%,35% 100%,
35% 65%,0 65%,0 35%,35% 35%)}
.legend .cross{clip-path:polygon(15% 0,50% 35%,85% 0,100% 15%,65% 50%,100% 85%,85% 100%,50% 65%,
15% 100%,0 85%,35% 50%,0 15%)}
.legend .striped{border-radius:2px;
background:repeating-linear-gradient(135deg,var(--c) 0 3px,#fff 3px 4.5px)}
.pan{overflow-x:auto;overflow-y:hidden}
.plot{width:100%;overflow:hidden}
details{margin-top:6px;font-size:.85rem}
summary{cursor:pointer;color:var(--muted)}
.scroll{overflow:auto;max-height:420px;margin-top:6px}
.sheet .scroll{max-height:none;margin-top:0}
.sheet.wide .scroll{max-height:420px}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);
white-space:nowrap}
th{text-align:left;font-weight:400}
thead th{color:var(--muted);font-weight:600;position:sticky;top:0;background:var(--paper)}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top}
tbody th{overflow-wrap:anywhere;min-width:5.5em}
tbody td:not(.n){overflow-wrap:break-word;min-width:7em}
tbody td:not(.n):last-child:not(:first-child){min-width:12em}
.n{text-align:right;white-space:nowrap}
th.n{white-space:normal}
th:last-child,td:last-child{padding-right:2px}
.modebar-container{opacity:.75}
@media (max-width:560px){header,main{padding-left:12px;padding-right:12px}
figure,.sheet{padding:12px 10px}.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}
.tiles>div{padding:10px 12px}.tiles>div:first-child{grid-column:1/-1}dd{font-size:1.3rem}
table{font-size:.8rem}th,td{padding-right:8px}tbody th{min-width:4.5em}}
@media print{body{background:#fff}figure,.sheet,.tiles>div{
break-inside:avoid;box-shadow:none}.blocks{display:block}.blocks>*{margin:0 0 14px}
h2{break-after:avoid}nav,.tools,details,.skip{display:none}.scroll{max-height:none;overflow:visible}}
"""
